"""The words after `pare jobs submit COMMAND`, read as that command's arguments."""

import inspect
import json
from collections.abc import Sequence
from typing import Any

from pare.errors import InputError


def parse(command: str, words: Sequence[str], expected: inspect.Signature) -> dict[str, Any]:
    """Keyword arguments from words as they follow the command itself: positions, `--flag value`, `--flag`, `--no-flag`.

    A value is text where the signature says `str` or `Path`, and otherwise a JSON number, true or false if it reads as
    one. A repeated flag makes a list. Raises `InputError` for one position too many.

    >>> def generate(model: str, *, prompt: str, steps: int = 4, dry_run: bool = False): ...
    >>> parse("generate", ["demo", "--prompt", "7", "--steps=8", "--dry-run"], inspect.signature(generate))
    {'model': 'demo', 'prompt': '7', 'steps': 8, 'dry_run': True}
    """
    positions = [p for p in expected.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    arguments: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            name = flag.replace("-", "_")
            if not equals and name.startswith("no_") and name not in expected.parameters:
                arguments[name[3:]] = False
                continue
            if not equals and (_annotation(expected, name) == "bool" or not rest or rest[0].startswith("--")):
                arguments[name] = True
                continue
            read = _value(value if equals else rest.pop(0), _annotation(expected, name))
            arguments[name] = _append(arguments[name], read) if name in arguments else read
        elif positions:
            parameter = positions[0]
            read = _value(word, _annotation(expected, parameter.name))
            if _is_many(parameter):
                arguments.setdefault(parameter.name, []).append(read)
            else:
                arguments[positions.pop(0).name] = read
        else:
            raise InputError(
                f"{command} arguments",
                got=word,
                expected="no further position",
                fix="put quotes around text with spaces",
            )
    return arguments


def _annotation(expected: inspect.Signature, name: str) -> str:
    parameter = expected.parameters.get(name)
    annotation = "" if parameter is None or parameter.annotation is parameter.empty else parameter.annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _is_many(parameter: inspect.Parameter) -> bool:
    return str(parameter.annotation).startswith(("Sequence", "list", "tuple"))


def _value(text: str, annotation: str) -> Any:
    if "str" in annotation or "Path" in annotation:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text


def _append(earlier: Any, value: Any) -> list[Any]:
    return [*earlier, value] if isinstance(earlier, list) else [earlier, value]
