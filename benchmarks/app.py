"""How fast the app is, in a real Chromium against its own server and in its server alone: every target, met or missed.

Three runs: the bundled one, one of random values at the size of a capture of Wan2.1-14B, and one of 200 samples, for
opening alone. The last two are written into a temporary folder that goes when the measurement ends.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from measuring import hardware
from measuring.in_browser import Drag, Pins, chromium, drag, opened, pins, served
from measuring.made_run import Size, write_run
from measuring.page_work import PAGES, PageWork, measure
from measuring.tables import head

from analysis.runs import Run
from pare.errors import InputError
from pare.files import write_bytes
from workbench.places import PROJECT, Places

PARTS, RUNS = ("start", "work", "open", "drag"), ("demo", "large", "many")
BUNDLED = PROJECT / "data" / "runs" / "demo"
LARGE, OPENING = (40, 40, 50, 100), (40, 40, 10, 200)
FRAME_MS, WIDGET_MS, OPEN_S, START_S = 16.7, 100.0, 1.0, 0.5
COLUMNS = ("run", "measured", "n", "unit", "median", "largest", "target", "")
Row = dict[str, Any]


def row(
    run: str,
    what: str,
    values: Sequence[float],
    unit: str,
    target: float | None,
    *,
    judged: float | None = None,
    **more: Any,
) -> Row:
    """A line of the table: median and largest of `values`; the median is held against the target unless `judged` is given."""
    median = float(np.median(values))
    held = median if judged is None else judged
    met = None if target is None else bool(held <= target)
    return {
        "run": run, "what": what, "n": len(values), "unit": unit, "median": median, "largest": float(max(values)),
        "target": target, "met": met, **more,
    }  # fmt: skip


def starting(repeats: int) -> list[Row]:
    """A whole process that imports the package, and one that prints its help; the best of several is what it takes."""
    found = []
    for what, words in (("import workbench", ("-c", "import workbench")), ("--help", ("-m", "workbench", "--help"))):
        seconds, processor = [], []
        for _ in range(repeats):
            start, before = time.perf_counter(), os.times()
            subprocess.run([sys.executable, *words], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
            after = os.times()
            seconds.append(time.perf_counter() - start)
            processor.append(after[2] + after[3] - before[2] - before[3])
        best = min(seconds)
        found.append(
            row(
                "–",
                f"`{what}`, whole process; best {best:.2f}, processor {min(processor):.2f}",
                seconds,
                "s",
                START_S,
                judged=best,
            )
        )
    return found


def working(name: str, work: PageWork) -> list[Row]:
    """Opening and widgets of one page."""
    new = {each.name: float(np.median(each.new)) for each in work.widgets}
    again = {each.name: float(np.median(each.again)) for each in work.widgets}
    page = work.page.capitalize()
    found = []
    for words, medians in (("to a new value", new), ("back and forth", again)):
        slowest = max(medians, key=lambda widget: medians[widget])
        what = f"{page}, server work of {len(medians)} widgets, {words}; largest: {slowest}"
        found.append(
            row(
                name,
                what,
                list(medians.values()),
                "ms",
                WIDGET_MS,
                judged=medians[slowest],
                widgets=work.as_dict()["widgets"],
            )
        )
    return found


def opening(name: str, work: PageWork, target: float | None) -> list[Row]:
    """The whole Heads page of a run that the process has not read yet, and of one that it has; its first map comes earlier."""
    found = []
    for words, key in (("nothing cached", "cold"), ("cached", "warm")):
        passed, processor = ([each / 1000 for each in work.opening[which]] for which in (f"{key} passed", key))
        found.append(row(name, f"opening, in the server, {words}", passed, "s", target))
        found.append(row(name, f"opening, server work, {words}", processor, "s", None))
    return found


def in_browser(name: str, run: str, places: Places, parts: Sequence[str], moves: int, repeats: int) -> list[Row]:
    """A run opened, dragged and pinned in Chromium."""
    fresh, again, found = [], [], []
    with chromium() as browser:
        for number in range(repeats if "open" in parts else 1):
            with served(places) as (address, server):
                with opened(browser, address, run) as view:
                    fresh.append(view.painted / 1000)
                with opened(browser, address, run) as view:
                    again.append(view.painted / 1000)
                    if number == 0 and "drag" in parts:
                        found += handled(name, drag(view, moves), pins(view, server, repeats))
    if "open" in parts:
        found.append(
            row(name, "opening, in the browser, to the painted grid, first page of a server", fresh, "s", None)
        )
        found.append(row(name, "opening, in the browser, to the painted grid, opened before", again, "s", None))
    return found


def handled(name: str, moved: Drag, pinned: Pins) -> list[Row]:
    """A drag of a threshold and pins of heads."""
    tail = float(np.quantile(moved.waits, 0.95))
    return [
        row(name, "threshold drag, input to painted frame", moved.waits, "ms", FRAME_MS, p95=tail),
        row(name, "threshold drag, from frame to frame", moved.gaps, "ms", None),
        row(name, "threshold drag, sent over the WebSocket meanwhile", [float(moved.bytes_sent)], "bytes", 0),
        row(name, "pinning a head, in the browser, key to card", pinned.passed, "ms", None),
        row(name, "pinning a head, processor time of the whole server", [pinned.server], "ms", WIDGET_MS),
    ]


def size_of(run: Run, *, everything: bool = True) -> Size:
    """How large a run is."""
    g = run.geometry
    return Size(g.blocks, g.heads, len(run.timesteps), len(run.manifest.samples), run.branches, everything)


@contextmanager
def written(sizes: Mapping[str, Size], *, pairs: bool) -> Iterator[Places]:
    """The places with these runs, those of random values in a temporary folder; with `pairs` one more of each to compare."""
    with tempfile.TemporaryDirectory(prefix="pare-benchmark-") as folder:
        place = Path(folder) / "runs"
        place.mkdir()
        for name, size in sizes.items():
            _say(f"writing a run of {size.words()}")
            if name != "demo":
                write_run(place / name, size)
            if pairs and name == "demo":
                shutil.copytree(BUNDLED, place / "demo-again")
            elif pairs and name == "large":
                write_run(place / "large-again", size, seed=1)
        yield Places(Path(folder) / "workspace", (place,))


def on_runs(
    sizes: Mapping[str, Size], parts: Sequence[str], pages: Sequence[str], moves: int, repeats: int
) -> Iterator[list[Row]]:
    """What is measured on runs: a few rows at a time, as they are known."""
    with written(sizes, pairs="work" in parts and "compare" in pages) as places:
        for name, size in sizes.items():
            link = {"run": "data/runs/demo" if name == "demo" else f"runs/{name}"}
            # The run of many samples is there for its opening.
            widgets = "work" in parts and name != "many"
            for page in pages if widgets else ["heads"] if "open" in parts else []:
                other = {"with": f"runs/{name}-again"} if page == "compare" else {}
                work = measure(page, places, link | other, size, repeats=repeats, widgets=widgets, say=_say)
                if "open" in parts and page == "heads":
                    yield opening(name, work, OPEN_S if name == "many" else None)
                if widgets:
                    yield working(name, work)
            if "open" in parts or "drag" in parts:
                yield in_browser(name, link["run"], places, parts, moves, repeats)


def body(rows: Sequence[Row]) -> str:
    """The rows as lines of a Markdown table."""

    def number(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"

    lines = []
    for each in rows:
        met = {None: "", True: "met", False: "**missed**"}[each["met"]]
        words = each["what"] + (f" (p95 {number(each['p95'])})" if "p95" in each else "")
        target = "–" if each["target"] is None else f"{each['target']:g}"
        cells = [
            each["run"],
            words,
            str(each["n"]),
            each["unit"],
            number(each["median"]),
            number(each["largest"]),
            target,
        ]
        lines.append("| " + " | ".join([*cells, met]) + " |")
    return "\n".join(lines)


def chosen(given: list[str] | None, known: Sequence[str], flag: str) -> list[str]:
    """What a repeated flag asks for; everything where it is not given."""
    for name in given or ():
        if name not in known:
            raise InputError(flag, got=name, expected=f"one of {', '.join(known)}", fix=f"{flag} {known[0]}")
    return list(given or known)


def main(
    part: Annotated[
        list[str] | None, typer.Option(help="start, work, open or drag; may be repeated. Default: all.")
    ] = None,
    page: Annotated[
        list[str] | None, typer.Option(help="heads, blocks, prune, route or compare. Default: all.")
    ] = None,
    large: Annotated[
        tuple[int, int, int, int],
        typer.Option(help="Blocks, heads, steps and samples of the large run, on two branches."),
    ] = LARGE,
    many: Annotated[
        tuple[int, int, int, int], typer.Option(help="The same of the run whose opening has a target, on one branch.")
    ] = OPENING,
    run: Annotated[list[str] | None, typer.Option(help="demo, large or many; may be repeated. Default: all.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Openings, starts, pins, and values of every widget.")] = 3,
    moves: Annotated[int, typer.Option(min=4, help="Moves of a drag.")] = 60,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("build/benchmarks/app.json"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be measured.")] = False,
) -> None:
    """The app's targets: a threshold drag, opening a run, the server's work at every widget, and the start of a command."""
    try:
        parts, pages, names = chosen(part, PARTS, "--part"), chosen(page, PAGES, "--page"), chosen(run, RUNS, "--run")
        sizes = {
            "demo": size_of(Run.open(BUNDLED)),
            "large": Size(*large, ("cond", "uncond")),
            "many": Size(*many, everything=False),
        }
        if dry_run:
            print(f"{', '.join(parts)}; pages {', '.join(pages)}")
            print("\n".join(f"{name}: {sizes[name].words()}" for name in names))
            return
        rows: list[Row] = []
        machine = hardware.describe_app(streamlit=version("streamlit"), plotly=version("plotly"))
        print(hardware.app_line(machine), head(COLUMNS), sep="\n\n", flush=True)

        def add(found: Sequence[Row]) -> None:
            print(body(found), flush=True)
            rows.extend(found)

        if "start" in parts:
            add(starting(repeats))
        on = set(parts) - {"start"}
        for found in on_runs({name: sizes[name] for name in names}, parts, pages, moves, repeats) if on else ():
            add(found)
    except InputError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", "benchmarks/app.py", *sys.argv[1:]])
    result = {"command": command, "hardware": machine, "rows": rows}
    write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())


def _say(message: str) -> None:
    """What is being measured, on standard error, where somebody looks."""
    if sys.stderr.isatty():
        print(message, file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
