"""`pare compare`: two sets of videos or two runs, every number with its n, difference and interval over prompts."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.metrics.video import METRICS, Measured, measure, measure_pair, summary
from analysis.paired import mean_over_prompts, paired_difference, spread_over_prompts
from pare.errors import InputError
from pare.files import check_output, replacing
from pare.progress import Progress, silent
from pare.versions import versions
from pare.video import read_video
from workbench.pairs import Pair, Pairs, StoredVideo, find_videos, pair_videos
from workbench.run_compare import compare_runs, without_videos
from workbench.run_compare import render as render_runs

ORACLE = ("digit", "colour", "direction", "speed", "consistent", "consistency")
GROUPS = ("motion", "steadiness", "appearance", "oracle")
# Settings that say where a video was made, not what.
ELSEWHERE = ("seed", "device", "offload", "dry_run")

Values = dict[str, float]


def compare(
    a: str | Path,
    b: str | Path,
    *,
    oracle: bool = False,
    statistic: str | None = None,
    branch: str | None = None,
    csv: str | Path | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Every video metric of A and of B, and of each pair: n, means, B − A and its 95 % bootstrap interval over prompts.

    `a` and `b` are videos, folders of videos, or runs and evaluations with videos; they are paired by the prompt and
    seed inside them, or by file name where they do not say. PSNR, SSIM and flow error are left out where prompt or seed
    are known to differ. `oracle` also reads moving digits and scores them against the prompts. With `statistic` (perhaps
    of one `branch`), and where two runs have no videos, their captured statistics are compared instead: see
    `workbench.run_compare.compare_runs`. `csv` names a table to write, one row per pair. `seed` is that of the bootstrap.
    Raises `InputError` where nothing can be paired, for pairs of two sizes, and for prompts that the oracle cannot read.
    """
    if csv is not None:
        check_output(csv, "--csv")
    if statistic is not None or branch is not None or (not oracle and without_videos(a, b)):
        if oracle:
            raise InputError("--oracle", got="a statistic too", expected="one of them", fix="the oracle reads videos")
        return compare_runs(a, b, statistic=statistic, branch=branch, csv=csv, seed=seed)
    found = pair_videos(find_videos(a), find_videos(b))
    if oracle:
        _check_captions(found.pairs)
    rows = []
    for number, pair in enumerate(found.pairs):
        rows.append(_measured(pair, oracle))
        progress(number + 1, len(found.pairs), pair.a.path.name)
    if csv is not None:
        _write_csv(rows, csv)
    return {
        "a": str(a),
        "b": str(b),
        "models": {side: sorted({v.model_id or "unknown" for v in _side(found, side)}) for side in ("a", "b")},
        "pairs": len(rows),
        "paired": sum(row["paired"] for row in rows),
        "by": {by: sum(row["by"] == by for row in rows) for by in sorted({row["by"] for row in rows})},
        "only_a": [str(video.path) for video in found.only_a],
        "only_b": [str(video.path) for video in found.only_b],
        "different_settings": _different_settings(found.pairs),
        "bootstrap_seed": seed,
        "metrics": _table(rows, seed),
        "videos": rows,
        "versions": versions(),
        "csv": None if csv is None else str(csv),
    }


def _measured(pair: Pair, oracle: bool) -> dict[str, Any]:
    """One row: what the pair is, and its numbers: `a`, `b` per video, `both` of the two."""
    first, second = (read_video(video.path)[0] for video in (pair.a, pair.b))
    if first.shape != second.shape:
        sizes = " and ".join(
            f"{video.path} with {len(frames)} frames of {frames.shape[1]} x {frames.shape[2]}"
            for video, frames in ((pair.a, first), (pair.b, second))
        )
        raise InputError("A and B", got=sizes, expected="one size and length", fix="make both with the same flags")
    measured: tuple[Measured, Measured] = (measure(first), measure(second))
    values_a, values_b = (each.summary for each in measured)
    if oracle:
        values_a |= _oracle(first, pair.a)
        values_b |= _oracle(second, pair.b)
    both = summary(measure_pair(first, second, *measured)) if pair.comparable else {}
    return {
        "video_a": str(pair.a.path),
        "video_b": str(pair.b.path),
        "by": pair.by,
        "paired": pair.paired,
        "prompt": pair.a.prompt,
        "seed": pair.a.seed,
        "group": pair.group,
        "a": values_a,
        "b": values_b,
        "both": both,
    }


def _oracle(frames: Any, video: StoredVideo) -> Values:
    """What the oracle says of one video, right as 1 and wrong as 0; NaN where the prompt does not ask."""
    from analysis.metrics.moving_digits import read, score
    from analysis.metrics.moving_digits_factors import parse_caption
    from workbench.demo.settings import DATA

    assert video.prompt is not None
    scored = score(read(frames, DATA), parse_caption(video.prompt))
    return {name: float("nan") if scored[name] is None else float(scored[name]) for name in ORACLE}  # type: ignore[arg-type]


def _check_captions(pairs: list[Pair]) -> None:
    from analysis.metrics.moving_digits_factors import parse_caption

    for video in (video for pair in pairs for video in (pair.a, pair.b)):
        try:
            parse_caption(video.prompt or "")
        except ValueError as error:
            raise InputError(
                "--oracle",
                got=f"{video.path} of the prompt {video.prompt!r}",
                expected="moving-digits prompts, as of the demo model",
                fix="leave --oracle out",
            ) from error


def _table(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """One line per metric over all pairs."""
    lines: list[dict[str, Any]] = []
    groups = [row["group"] for row in rows]
    for name, metric in METRICS.items():
        about = {"metric": name, "group": metric.group, "title": metric.title, "unit": metric.unit,
                 "better": metric.better}  # fmt: skip
        if metric.two:
            chosen = [(row["both"][name], row["group"]) for row in rows if name in row["both"]]
            found = mean_over_prompts([value for value, _ in chosen], [group for _, group in chosen], seed=seed)
            lines.append(about | {"of": "both"} | asdict(found))
        else:
            lines.append(about | _difference(rows, name, groups, seed))
    for name in ORACLE if "digit" in rows[0]["a"] else ():
        unit = "0..1" if name == "consistency" else "share right"
        about = {"metric": name, "group": "oracle", "title": name, "unit": unit, "better": "higher"}
        lines.append(about | _difference(rows, name, groups, seed))
    return lines


def _difference(rows: list[dict[str, Any]], name: str, groups: list[str], seed: int) -> dict[str, Any]:
    a, b = ([row[side][name] for row in rows] for side in ("a", "b"))
    found = paired_difference(a, b, groups, seed=seed)
    spread = spread_over_prompts(a, b, groups)
    effect = found.difference / spread if spread > 0 else float("nan")
    return {"of": "each"} | asdict(found) | {"clear": found.clear, "spread": spread, "effect": effect}


def _different_settings(pairs: list[Pair]) -> dict[str, list[list[Any]]]:
    """Settings that differ within a pair, each with the values of A and of B."""
    different: dict[str, list[list[Any]]] = {}
    for pair in pairs:
        for name in sorted({*pair.a.settings, *pair.b.settings} - {*ELSEWHERE}):
            values = pair.a.settings.get(name), pair.b.settings.get(name)
            if pair.a.settings and pair.b.settings and values[0] != values[1]:
                seen = different.setdefault(name, [[], []])
                for side, value in zip(seen, values, strict=True):
                    if value not in side:
                        side.append(value)
    return different


def _side(found: Pairs, side: str) -> list[StoredVideo]:
    return [getattr(pair, side) for pair in found.pairs]


def _write_csv(rows: list[dict[str, Any]], path: str | Path) -> None:
    import pandas as pd

    flat = [
        {name: row[name] for name in ("video_a", "video_b", "by", "paired", "prompt", "seed")}
        | {f"{name}_{side}": value for side in ("a", "b") for name, value in row[side].items()}
        | row["both"]
        for row in rows
    ]
    with replacing(path) as temporary:
        pd.DataFrame(flat).to_csv(temporary, index=False)


def render(result: dict[str, Any]) -> str:
    """The result for people: a table per kind of metric, since motion and appearance are never one number."""
    if "statistic" in result:
        return render_runs(result)
    models = {side: ", ".join(names) for side, names in result["models"].items()}
    by = ", ".join(f"{count} by {name}" for name, count in result["by"].items())
    lines = [
        f"A  {result['a']} ({models['a']})",
        f"B  {result['b']} ({models['b']})",
        f"{result['pairs']} pair(s): {by}"
        + ("" if result["paired"] == result["pairs"] else "; only equal prompt and seed count as paired"),
    ]
    for side in ("a", "b"):
        if left := result[f"only_{side}"]:
            lines.append(f"{len(left)} video(s) of {side.upper()} have no partner")
    for name, values in result["different_settings"].items():
        lines.append(f"{name} differs: {' and '.join(', '.join(map(str, side)) for side in values)}")
    for group in GROUPS:
        rows = [row for row in result["metrics"] if row["group"] == group]
        if not rows:
            continue
        lines += ["", f"{group:<28}{'':<13}{'n':>5}{'A':>10}{'B':>10}{'B − A':>11}   95 % over prompts"]
        lines += [_line(row) for row in rows]
    if any(row.get("clear") for row in result["metrics"]):
        lines += ["", "* the interval leaves zero out"]
    if result["metrics"][0]["prompts"] < 2:
        lines += ["", "no intervals: they need two prompts or more"]
    if result["csv"]:
        lines.append(f"written {result['csv']}")
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    start = f"  {row['title']:<26}{row['unit']:<13}{row['n']:>5}"
    missing = row["low"] != row["low"]
    if row["of"] == "both":
        interval = "–" if missing else f"{_number(row['low'])} to {_number(row['high'])}"
        mean = "–" if row["n"] == 0 else _number(row["mean"])
        return f"{start}{'between A and B':>20}{mean:>11}   {interval}"
    interval = "–" if missing else f"{_number(row['low'], sign=True)} to {_number(row['high'], sign=True)}"
    columns = _number(row["mean_a"]), _number(row["mean_b"]), _number(row["difference"], sign=True)
    mark = " *" if row["clear"] else ""
    return f"{start}{columns[0]:>10}{columns[1]:>10}{columns[2]:>11}   {interval}{mark}"


def _number(value: float, sign: bool = False) -> str:
    """Three significant digits; small ones as powers of ten."""
    if value != value:
        return "–"
    text = f"{value:{'+' if sign else ''}.3g}"
    return text.replace("-", "−").replace("e−0", "e−").replace("e+0", "e")
