"""What a report says of a mask: made already, or as the settings would make it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.figures.masks import kept_per_block
from analysis.figures.tables import kept_table
from analysis.runs import Run
from pare import mask as masks
from pare.geometry import Geometry
from workbench import recipes
from workbench.mask_plan import MaskPlan
from workbench.mask_words import PARTS
from workbench.pages.text import command_line, short_path
from workbench.plan import gibi, tera
from workbench.report.part import Part
from workbench.state import Selection


@dataclass(frozen=True, eq=False)
class Cut:
    """A mask's kept self-attention heads [block, head], its counts per block, its settings and predicted cost.

    It is a mask file (`file`), or a plan at settings that `pare mask` takes (`arguments`).
    """

    self_heads: np.ndarray
    counts: Mapping[str, list[int]]
    settings: Mapping[str, Any]
    predicted: Mapping[str, Any]
    file: Path | None = None
    arguments: Mapping[str, Any] | None = None

    @classmethod
    def of_file(cls, path: str | Path, run: Run) -> "Cut":
        """Read a mask. Raises InputError for one that is unreadable or of another model than the run's."""
        mask = masks.load(path)
        masks.check(mask, run.geometry, run.manifest.model)
        about = (mask.metadata.get("settings") or {}, mask.metadata.get("predicted") or {})
        return cls(mask.self_heads, mask.counts(), *about, file=Path(path))

    @classmethod
    def of_plan(cls, planned: MaskPlan, arguments: Mapping[str, Any], geometry: Geometry) -> "Cut | None":
        """What a plan would keep; None for one without scores of heads."""
        if planned.self_heads is None:
            return None
        counts = planned.counts.per_block(geometry.blocks)
        return cls(planned.self_heads, counts, planned.settings.model_dump(), planned.predicted, arguments=arguments)

    def grid_python(self, run: Run, selection: Selection) -> str:
        """The Python that makes the head grid with what is removed."""
        if self.file is not None:
            return recipes.head_grid(run, selection, mask_file=self.file)
        return recipes.head_grid(run, selection, mask=self.arguments)

    def report_command(self, run: Run, selection: Selection) -> str:
        """The command lines that make a report with this mask; a plan is written first."""
        source = short_path(run.folder)
        mask = "mask.safetensors" if self.file is None else short_path(self.file)
        given = recipes.report_arguments(selection)
        lines = [command_line("report", source, out="report.html", mask=mask, **given)]
        if self.file is None:
            lines.insert(0, command_line("mask", source, out=mask, **(self.arguments or {})))
        return "\n".join(lines)

    def part(self, run: Run) -> Part:
        """What stays in every block, the settings and what that saves."""
        geometry = run.geometry
        sizes = {"self_heads": geometry.heads, "cross_heads": geometry.heads, "neurons": geometry.ffn}
        kept = ", ".join(
            f"{sum(self.counts[part]):,} of {sizes[part] * geometry.blocks:,} {words}" for part, words in PARTS.items()
        )
        if self.file is not None:
            python = recipes.kept_in_mask(run, self.file)
            command = command_line("mask", "show", short_path(self.file))
        else:
            python = recipes.kept_per_block(run, self.arguments or {})
            command = command_line("mask", short_path(run.folder), "--dry-run", **(self.arguments or {}))
        made = f"The mask {self.file.name}" if self.file is not None else "A mask at these settings"
        return Part(
            "Mask" if self.file is not None else "Mask at these settings",
            f"{made} keeps {kept}. Counts, not averages.",
            facts=[*_shown(self.settings), *_shown(self.predicted)],
            figure=kept_per_block(self.counts, sizes),
            alt="Share of heads and neurons that stay in every block.",
            table=kept_table(self.counts, sizes),
            python=python,
            command=command,
        )


def _shown(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The scalars among some settings or costs, as names and values for people.

    >>> _shown({"tau_s": 0.7, "dense_flops": 3.6642e9, "weight_bytes": 5 * 2**20, "parameters": 12345})
    [('tau s', '0.7'), ('dense flops', '3.7 GFLOP'), ('weight bytes', '5.0 MiB'), ('parameters', '12,345')]
    """
    simple = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    return [(name.replace("_", " "), _number(name, value)) for name, value in simple.items()]


def _number(name: str, value: str | int | float) -> str:
    if isinstance(value, str | bool):
        return str(value)
    if name.endswith("flops"):
        return tera(value)
    if name.endswith("bytes"):
        return gibi(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
