"""The JSON lines of a training, read back; no torch, so that the app can."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of `log.jsonl`, the last one of each kind and step (a resumed run repeats some); see `parse_log`."""
    yield from parse_log((folder / LOG).read_text("utf-8", errors="replace"))[0]


def parse_log(text: str) -> tuple[list[dict[str, Any]], int]:
    """The records in the order of their steps, validations behind training, and how many lines are none.

    A kill may tear the last line, which the resumed training then goes on behind.

    >>> parse_log('{"step": 2, "loss": 0.5}\\n{"step": 1, "lo')
    ([{'step': 2, 'loss': 0.5}], 1)
    """
    records: dict[tuple[int, bool], dict[str, Any]] = {}
    torn = 0
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            torn += 1
            continue
        records[record["step"], "validation" in record] = record
    return [records[key] for key in sorted(records)], torn
