"""From a command's name and arguments to a job that can run: checked without importing the command.

Commands import torch; whoever submits must not. So the signature is read from the source, and the paths are settled
here, where the submitter's folder is known, and once more in the worker.
"""

import ast
import importlib.util
import inspect
import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from pare.errors import InputError

COMMANDS = "workbench.commands"
OUTPUTS = ("out", "csv", "parquet")
"""Arguments that name what a command writes."""
FOREGROUND = ("app", "jobs")
"""Commands that are no work to wait for."""
IMAGES = ("image", "last_image")
"""Settings of a model's run that name files."""
RESERVED = ("progress", "load", "validate")
"""Arguments that the worker gives, and callbacks, which no job can carry."""

LONGEST_PATH = 4096


def new_id(name: str) -> str:
    """An id that nobody had: the name, the time, and six random digits, within [a-z0-9-]{1,64}."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "job"
    return f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def signature(command: str, package: str = COMMANDS) -> inspect.Signature:
    """The signature of the function PACKAGE.COMMAND.COMMAND, read from its source.

    Annotations are their source text; a default is only known to be there. Raises `InputError` unless the command
    exists and takes `progress`, which is what lets a job be watched and cancelled.
    """
    function = None if command in FOREGROUND else _definition(command, package)
    if function is None or "progress" not in _names(function.args):
        raise InputError(
            "job command",
            got=repr(command),
            expected="a long-running command, such as capture or generate",
            fix="run the other commands directly",
        )
    return _signature(function.args)


def prepare(
    command: str,
    arguments: Mapping[str, Any],
    device: str,
    *,
    package: str = COMMANDS,
    root: Path,
    artefacts: Path,
    here: Path | None = None,
) -> dict[str, Any]:
    """The arguments as the job table keeps them: bound to the signature, JSON, every path absolute.

    Outputs go under `artefacts`, or where they say inside the workspace `root`. Other relative paths that exist are
    taken from `here` (default: the current folder). A command that runs a model gets the job's device.
    """
    expected = signature(command, package)
    for name in RESERVED:
        if name in arguments:
            raise InputError(f"{command} {name}", got="a value", expected="none in a job", fix=f"leave {name} out")
    by_caller = [parameter for name, parameter in expected.parameters.items() if name not in RESERVED]
    ready = {name: _plain(value) for name, value in arguments.items()}
    if "device" in expected.parameters or ("load" in expected.parameters and _open_ended(expected)):
        given = ready.get("device")
        if given not in (None, "auto", device):
            raise InputError("--device", got=given, expected=f"{device}, the job's own", fix=f"submit to {given}")
        ready["device"] = device
    try:
        expected.replace(parameters=by_caller).bind(**ready)
    except TypeError as error:
        usage = ", ".join(parameter.name for parameter in by_caller)
        raise InputError(f"{command} arguments", got=error, expected=usage, fix="add or correct the argument") from None
    for name, value in ready.items():
        if isinstance(value, str) and value:
            known = expected.parameters.get(name)
            is_path = name in IMAGES or (known is not None and "Path" in known.annotation)
            ready[name] = (
                str(output_path(name, value, root, artefacts))
                if name in OUTPUTS
                else _input_path(value, is_path, here or Path.cwd())
            )
    try:
        json.dumps(ready, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"{command} arguments", got=error, expected="JSON values", fix="pass plain values") from None
    return ready


def output_path(name: str, value: str, root: Path, artefacts: Path) -> Path:
    """Where an output goes: under `artefacts` when relative, else as it says; always inside the workspace `root`.

    Raises `InputError` for a path that leaves its place, by `..` or through a symbolic link.
    """
    if "\0" in value or len(value) > LONGEST_PATH:
        shown = repr(value[:60])
        raise InputError(f"--{name}", got=shown, expected="a path", fix="use a short name of letters and digits")
    path = Path(value)
    place = root if path.is_absolute() else artefacts
    target = (place / path).resolve()
    if not target.is_relative_to(place.resolve()) or target == place.resolve():
        raise InputError(
            f"--{name}", got=value, expected=f"a path inside {place}", fix="use a relative path without .."
        )
    return target


def _input_path(value: str, is_path: bool, here: Path) -> str:
    # Text counts as a path only when it is written like one and something is there: hub ids and prompts stay.
    written_as_path = is_path or os.sep in value
    if len(value) > LONGEST_PATH or "\0" in value or not written_as_path:
        return value
    path = here / Path(value).expanduser()
    try:
        return str(path.resolve()) if path.exists() else value
    except OSError:
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return value


def _open_ended(expected: inspect.Signature) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in expected.parameters.values())


def _definition(command: str, package: str) -> ast.FunctionDef | None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", command):
        return None
    try:
        found = importlib.util.find_spec(f"{package}.{command}")
    except ModuleNotFoundError:
        return None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return None
    body = ast.parse(Path(found.origin).read_text("utf-8")).body
    return next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == command), None)


def _names(arguments: ast.arguments) -> set[str]:
    return {argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}


def _signature(arguments: ast.arguments) -> inspect.Signature:
    kinds = inspect.Parameter

    def parameter(argument: ast.arg, kind: Any, optional: bool) -> inspect.Parameter:
        annotation = "" if argument.annotation is None else ast.unparse(argument.annotation)
        return kinds(argument.arg, kind, default=... if optional else kinds.empty, annotation=annotation)

    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    parameters = [
        parameter(argument, kinds.POSITIONAL_OR_KEYWORD, index >= first_default)
        for index, argument in enumerate(positional)
    ]
    if arguments.vararg:
        parameters.append(parameter(arguments.vararg, kinds.VAR_POSITIONAL, False))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters.append(parameter(argument, kinds.KEYWORD_ONLY, default is not None))
    if arguments.kwarg:
        parameters.append(parameter(arguments.kwarg, kinds.VAR_KEYWORD, False))
    return inspect.Signature(parameters)
