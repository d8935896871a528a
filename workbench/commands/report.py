"""`pare report`: one HTML file of a selection that opens offline."""

from pathlib import Path
from typing import Any

from analysis.block_values import LENSES
from analysis.roles import TAU_S, TAU_T, check_thresholds
from analysis.runs import Run
from pare.errors import InputError
from pare.files import check_output, write_bytes
from workbench import recipes
from workbench.pages.text import command_line, file_size, short_path
from workbench.report.build import build_report
from workbench.report.cut import Cut
from workbench.report.page import render_report
from workbench.state import Selection


def report(
    run: str | Path,
    *,
    out: str | Path,
    block: int | None = None,
    head: int | None = None,
    sample: int | None = None,
    branch: str | None = None,
    steps: str | None = None,
    lens: str = "residual",
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    mask: str | Path | None = None,
    max_videos: float = 20.0,
) -> dict[str, Any]:
    """Write what a selection of a run shows as one HTML file: finding, figures with numbers, videos, settings, versions.

    `block` and `head` name the head in detail, `sample`, `branch` and `steps` ("first-last") the part that is averaged,
    `lens` what the map of blocks shows, `mask` a mask file to show; videos up to `max_videos` MB are inside. The same
    call writes the same bytes. Raises `InputError` for a run or a mask that cannot be read or does not fit, and for a
    part that the run does not have.
    """
    check_output(out)
    check_thresholds(tau_s, tau_t)
    if not max_videos >= 0:
        raise InputError("--max-videos", got=max_videos, expected="MB, 0 or more", fix="--max-videos 20")
    opened = Run.open(run)
    if lens not in LENSES:
        raise InputError("--lens", got=lens, expected=f"one of {', '.join(LENSES)}", fix="--lens residual")
    part = {"block": block, "head": head, "sample": sample, "branch": branch, "steps": steps}
    selection = _selection(opened, **part, lens=lens, tau_s=tau_s, tau_t=tau_t)
    cut = None if mask is None else Cut.of_file(mask, opened)
    given: dict[str, Any] = {"mask": None if mask is None else short_path(Path(mask))}
    given |= {"max_videos": None if max_videos == 20 else max_videos}
    command = command_line(
        "report", short_path(opened.folder), out=Path(out).name, **recipes.report_arguments(selection), **given
    )
    made = build_report(opened, selection, cut=cut, command=command, most_video_bytes=round(max_videos * 1e6))
    content = render_report(made).encode()
    write_bytes(out, content)
    return {
        "report": str(out),
        "bytes": len(content),
        "finding": made.finding,
        "parts": [part.title for part in made.parts],
        "videos": sum(clip.content is not None for clip in made.clips),
        "left_out": made.left_out or None,
    }


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['report']}: {file_size(result['bytes'])}, {len(result['parts'])} parts, {result['videos']} videos"
    ]
    return "\n".join([*lines, result["finding"], *([result["left_out"]] if result["left_out"] else [])])


def _selection(run: Run, *, steps: Any, **values: Any) -> Selection:
    """The selection that the flags name. Raises InputError for what the run does not have."""
    geometry = run.geometry
    if values["head"] is not None and values["block"] is None:
        raise InputError("--head", got="no --block", expected="a head with its block", fix="add --block")
    sizes = {"block": geometry.blocks, "head": geometry.heads, "sample": len(run.manifest.samples)}
    for name, size in sizes.items():
        if values[name] is not None and not 0 <= values[name] < size:
            raise InputError(f"--{name}", got=values[name], expected=f"0 to {size - 1}", fix=f"--{name} 0")
    if values["sample"] is not None and values["sample"] not in run.finished:
        raise InputError("--sample", got=values["sample"], expected="a finished sample", fix="capture with --resume")
    if values["branch"] is not None:
        run.branch_index(values["branch"])
    first, last = (None, None) if steps is None else _steps(steps, len(run.timesteps))
    return Selection(**values, first_step=first, last_step=last)


def _steps(text: str, count: int) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if all(part.isascii() and part.isdigit() and len(part) < 10 for part in (first, last or first)):
        low, high = int(first), int(last or first)
        if low <= high < count:
            return low, high
    raise InputError("--steps", got=text, expected=f"first-last within 0-{count - 1}", fix=f"--steps 0-{count - 1}")
