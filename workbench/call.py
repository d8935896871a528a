"""From the words of a command line to the one public function behind it, and from its result to the reader."""

import contextlib
import dataclasses
import importlib
import inspect
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Annotated, Any

import typer

from pare.errors import Cancelled, InputError
from pare.processes import this_process
from pare.progress import silent
from workbench.bar import Bar
from workbench.settings import RunSettings

DONE, FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130

FLAGS = {
    "json": Annotated[bool, typer.Option("--json", help="Print one JSON object.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show where an unexpected error came from.")],
}


@dataclasses.dataclass(frozen=True)
class Call:
    """A function of a module of `workbench.commands` (default: of the same name) and its arguments by name."""

    module: str
    function: str | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def as_command(describe: Callable[..., Call]) -> Callable[..., None]:
    """Makes a typer command of a function that describes a call: adds --json and --debug, calls, prints, exits."""
    signature = inspect.signature(describe, eval_str=True)
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in FLAGS.items()
    ]
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]

    def command(*positional: Any, **named: Any) -> None:
        as_json, debug = named.pop("json"), named.pop("debug")
        raise typer.Exit(run(describe(*positional, **_chosen(named)), as_json=as_json, debug=debug))

    command.__name__, command.__doc__ = describe.__name__, describe.__doc__
    command.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in [*own, *flags]}
    return command


def run(call: Call, *, as_json: bool = False, debug: bool = False) -> int:
    """Makes the call, prints its result (as text, or as one JSON object) and returns the exit code.

    A command's module may have `render(result)`, its text for people, and `failed(result)`, true where the command ran
    but found something wrong: exit code 1.
    """
    try:
        # What libraries print must not get between the reader and the result.
        with Bar() as bar, contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module(f"workbench.commands.{call.module}")
            function = getattr(module, call.function or call.module)
            # Of several processes only the leading one speaks.
            leads = this_process().leads
            takes_progress = "progress" in inspect.signature(function).parameters
            extra = {"progress": bar if leads else silent} if takes_progress else {}
            result = function(**call.arguments, **extra)
        if leads:
            _print(result, None if as_json else getattr(module, "render", None))
        found_wrong = getattr(module, "failed", None)
        return FAILED if found_wrong is not None and found_wrong(result) else DONE
    except InputError as error:
        if debug:
            traceback.print_exc()
        print(error, file=sys.stderr)
        return BAD_INPUT
    except (Cancelled, KeyboardInterrupt):
        print("cancelled", file=sys.stderr)
        return CANCELLED
    except BrokenPipeError:
        # The reader, for example `head`, has enough; Python must not try to flush again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        reason = " ".join(str(error).split())[:300]
        print(f"{type(error).__name__}: {reason} (--debug shows where)", file=sys.stderr)
        return FAILED


def plain(value: Any) -> Any:
    """The value in JSON's own types: paths as text, arrays as lists, not-a-number as null.

    >>> plain({"at": PurePath("a") / "b", "ratio": float("nan"), 3: (1, 2)})
    {'at': 'a/b', 'ratio': None, '3': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, PurePath):
        return value.as_posix()
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def _chosen(named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without the run flags that were left at their defaults, so that a model's own defaults hold."""
    fields = RunSettings.model_fields
    return {name: value for name, value in named.items() if name not in fields or value != fields[name].default}


def _print(result: Any, render: Callable[[Any], Any] | None) -> None:
    if render is None:
        print(json.dumps(plain(result), ensure_ascii=False, allow_nan=False), flush=True)
        return
    shown = render(result)
    if isinstance(shown, str):
        print(shown, flush=True)
        return
    from rich.console import Console

    Console().print(shown)
