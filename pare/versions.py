"""Which software made a file: versions of this project and of what runs the models."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("pare-workbench", "torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Name → installed version of Python and of the packages that decide a result; what is not installed is left out.

    >>> sorted(versions())[-3:]
    ['safetensors', 'torch', 'transformers']
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
