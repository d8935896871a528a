"""What a block, and everything beside the blocks, takes on this machine: a measured table, and videos predicted by it."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pare.errors import InputError
from pare.files import write_bytes

SCHEMA = "pare-depth-costs/1"


@dataclass(frozen=True)
class CostTable:
    """Seconds of one clip size on one machine: `block` of one block of one forward, `forward` of the rest of a forward,
    `step` of what a step does once (router, sampler), `video` of what a video does once (text, decoding).

    `about` says what was measured: model, clip, device, precision, hardware.

    >>> table = CostTable(blocks=8, block=0.01, forward=0.002, step=0.001, video=0.5)
    >>> round(table.seconds(blocks_run=50 * 6, steps=50, forwards=2), 2)
    6.75
    """

    blocks: int
    block: int | float
    forward: int | float = 0.0
    step: int | float = 0.0
    video: int | float = 0.0
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        seconds = (self.block, self.forward, self.step, self.video)
        if self.blocks < 1 or not self.block > 0 or not all(math.isfinite(each) and each >= 0 for each in seconds):
            raise InputError(
                "cost table", got=f"{self.blocks} blocks, {seconds}", expected="seconds above 0", fix="measure it again"
            )

    def seconds(self, *, blocks_run: int | float, steps: int, forwards: int = 2) -> float:
        """Seconds of a video whose steps run `blocks_run` blocks in all; `forwards` per step, 2 with guidance."""
        return self.video + steps * self.step + forwards * (steps * self.forward + blocks_run * self.block)

    def save(self, path: str | Path) -> Path:
        """Write the table as JSON."""
        content = {"schema": SCHEMA, **dataclasses.asdict(self)}
        write_bytes(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "CostTable":
        """Read a table. Raises InputError for a missing or foreign file."""
        fix = "measure one with python benchmarks/depth.py --costs FILE"
        try:
            content = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError("--costs", got=f"{path}, {type(error).__name__}", expected=SCHEMA, fix=fix) from error
        schema = content.pop("schema", None) if isinstance(content, dict) else None
        names = {each.name for each in dataclasses.fields(cls)}
        if schema != SCHEMA or set(content) - names or not {"blocks", "block"} <= set(content):
            raise InputError("--costs", got=f"{path}, schema {schema!r}", expected=SCHEMA, fix=fix)
        numbers = {name: value for name, value in content.items() if name != "about"}
        if not all(isinstance(value, int | float) for value in numbers.values()):
            raise InputError("--costs", got=f"{path}, not all numbers", expected=SCHEMA, fix=fix)
        return cls(**content)
