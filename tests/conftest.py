"""Fixtures that every test may use."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ports import find_free_port

# Tiny tensors gain nothing from a second thread, and lose much when tests share the cores. Set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
# Equal weights must give equal numbers. Without this MKL's last bits depend on where a tensor lies in memory, and a loaded
# file's tensors lie elsewhere than fresh ones (seen on processors without AVX-512).
os.environ["MKL_CBWR"] = "AUTO,STRICT"
# What the shell says to the app, to Streamlit or to a launcher is not said to the tests.
for _name in [name for name in os.environ if name.startswith(("PARE_", "STREAMLIT_"))] + [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
]:
    os.environ.pop(_name, None)
# Servers that tests start on this machine are asked directly, whatever proxy there is.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

# Every machine draws the same examples and none is failed for being slow. HYPOTHESIS_PROFILE=hunt looks for what they miss.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("hunt", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives a free port of this machine."""
    return find_free_port


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved text-to-video pipeline with random weights; read only."""
    from tests.tiny import save, tiny_pipeline

    return save(tiny_pipeline(), tmp_path_factory.mktemp("tiny") / "text-to-video")


@pytest.fixture(scope="session")
def tiny_image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved image-to-video pipeline with random weights; read only."""
    from tests.tiny import save, tiny_image_pipeline

    return save(tiny_image_pipeline(), tmp_path_factory.mktemp("tiny") / "image-to-video")
