"""`pare evaluate`: the videos of a file of prompts, scored with every video metric and, on moving digits, the oracle."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pare import reference
from pare.errors import InputError
from pare.files import replacing, write_bytes
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.commands.capture import read_prompts
from workbench.commands.generate import generate
from workbench.settings import RunSettings

SCHEMA = "pare-evaluation/1"
RESULT, SCORES, VIDEOS = "evaluation.json", "scores.csv", "videos"
GROUPS = ("motion", "steadiness", "appearance")


def evaluate(
    model: str,
    *,
    out: str | Path,
    prompts: str | Path | Sequence[str] | None = None,
    samples: int | None = None,
    mask: str | Path | None = None,
    router: str | Path | None = None,
    k_min: float | None = None,
    k_max: float | None = None,
    share: float | None = None,
    seconds: float | None = None,
    costs: str | Path | None = None,
    run: str | Path | None = None,
    progress: Progress = silent,
    load: Callable[..., Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Generate video i from prompt i with seed `seed` + i, score what was written, and write the folder `out`.

    It gets `videos/00000.mp4` …, `scores.csv` with a row per video, and `evaluation.json` with the mean of every metric
    over prompts, its n and 95 % interval; where all prompts are moving-digits captions, also the oracle's table. Two
    such folders are what `pare compare` takes. The same command again goes on where it was stopped. `prompts` is a file
    with one prompt a line, or the prompts themselves (default for the demo model: its held-out prompts), `samples` how
    many of them. The other arguments are those of `generate`; `load` stands in for `pare.models.load_pipeline`. Raises
    `InputError` for anything that could not work, and for a folder with something else in it.
    """
    lines = read_prompts(prompts, model)
    if not lines:
        raise InputError("--prompts", got="none", expected="a text file, one prompt per line", fix="--prompts FILE")
    if samples is not None and not 1 <= samples <= len(lines):
        raise InputError(
            "--samples",
            got=samples,
            expected=f"1 to {len(lines)}, the number of prompts",
            fix=f"--samples {len(lines)}",
        )
    lines = lines[:samples]
    filled = RunSettings.of(**settings).filled(model)
    how: dict[str, Any] = {"mask": mask, "router": router, "k_min": k_min, "k_max": k_max, "share": share, "seconds": seconds,
           "costs": costs, "run": run}  # fmt: skip
    folder = Path(out)
    # A plan checks mask, router and images, so that bad input leaves nothing behind.
    planned = generate(
        model, prompt=lines[0], out=folder / VIDEOS / "00000.mp4", **how, **(settings | {"dry_run": True})
    )
    if filled.dry_run:
        return planned | {name: planned[name] * len(lines) for name in ("clips", "forwards", "flops", "seconds")}
    request = _request(model, lines, how, filled)
    _check_folder(folder, request)
    write_bytes(folder / RESULT, _json({"schema": SCHEMA, "request": request}))
    paths = [folder / VIDEOS / f"{number:05d}.mp4" for number in range(len(lines))]
    held = _Held(load)
    for number, (prompt, path) in enumerate(zip(lines, paths, strict=True)):
        if path.is_file():
            continue

        def step(done: int, total: int, message: str = "", number: int = number) -> None:
            progress(number, len(lines), f"video {number + 1} of {len(lines)}: {message}")

        own = {**settings, "seed": filled.seed + number}
        generate(model, prompt=prompt, out=path, progress=step, load=held, **how, **own)
        progress(number + 1, len(lines), f"video {number + 1} of {len(lines)}")
    rows = []
    for number, (prompt, path) in enumerate(zip(lines, paths, strict=True)):
        rows.append({"prompt": prompt, "seed": filled.seed + number, **_scored(path, prompt)})
        progress(len(lines), len(lines), f"scored {number + 1} of {len(lines)}")
    result = {"schema": SCHEMA, "request": request, "videos": len(rows), "metrics": _metrics(rows),
              "oracle": _oracle(rows), "versions": versions()}  # fmt: skip
    _write_scores(rows, folder / SCORES)
    write_bytes(folder / RESULT, _json(result))
    return {"out": str(out), **result}


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if result.get("dry_run"):
        from workbench.plan import render_plan

        return render_plan(result)
    lines = [f"{result['out']}: {result['videos']} videos of {result['request']['model']['model_id']}"]
    for group in GROUPS:
        lines += ["", f"{group:<28}{'':<13}{'n':>5}{'mean':>11}   95 % over prompts"]
        for row in result["metrics"]:
            if row["group"] == group:
                low, high = row["low"], row["high"]
                interval = "–" if low is None or low != low else f"{low:.3g} to {high:.3g}"
                lines.append(f"  {row['title']:<26}{row['unit']:<13}{row['n']:>5}{row['mean']:>11.3g}   {interval}")
    if result["oracle"]:
        from workbench.demo.evaluate import BARS
        from workbench.demo.evaluate import render as render_oracle

        lines += ["", render_oracle("oracle", result["oracle"], BARS)]
    return "\n".join(lines)


class _Held:
    """Loads the pipeline once, when the first video is due."""

    def __init__(self, load: Callable[..., Any] | None):
        self._load = load
        self._pipe: Any = None

    def __call__(self, model: str, **options: Any) -> Any:
        if self._pipe is None:
            from pare.models import load_pipeline

            self._pipe = (self._load or load_pipeline)(model, **options)
        return self._pipe


def _request(model: str, prompts: list[str], how: dict[str, Any], filled: RunSettings) -> dict[str, Any]:
    """What decides the videos: two evaluations with the same request are one."""
    given = {name: value for name, value in how.items() if value is not None}
    # The same name may stand for another file tomorrow.
    hashes = {name: _hash(Path(str(value))) for name, value in given.items() if Path(str(value)).is_file()}
    return {
        "model": reference.model_identity(model),
        "prompts": prompts,
        "settings": filled.model_dump(exclude={"dry_run"}),
        "how": {name: value if isinstance(value, int | float) else str(value) for name, value in given.items()},
        "hashes": hashes,
    }


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_folder(folder: Path, request: dict[str, Any]) -> None:
    """Raises `InputError` where the folder holds anything but an evaluation of the same request."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        held = json.loads((folder / RESULT).read_text("utf-8"))["request"]
    except (OSError, ValueError, KeyError, TypeError):
        held = None
    if held != json.loads(json.dumps(request)):
        raise InputError(
            "--out",
            got=f"{folder}, which holds " + ("something else" if held is None else "an evaluation of something else"),
            expected="a new folder, or one that this very command began",
            fix="name another --out",
        )


def _scored(path: Path, prompt: str) -> dict[str, Any]:
    """The metrics of one video as written and, for a moving-digits caption, what the oracle says."""
    from analysis.metrics.moving_digits_factors import parse_caption
    from analysis.metrics.video import measure
    from pare.video import read_video
    from workbench.demo.evaluate import judge
    from workbench.demo.settings import DATA

    frames = read_video(path)[0]
    found: dict[str, Any] = {"metrics": measure(frames).summary}
    try:
        found["oracle"] = judge(frames, parse_caption(prompt), DATA)
    except ValueError:
        # No moving-digits caption, or (InputError is a ValueError) no moving-digits video.
        found["oracle"] = None
    return found


def _metrics(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from analysis.metrics.video import METRICS
    from analysis.paired import mean_over_prompts

    prompts = [row["prompt"] for row in rows]
    lines = []
    for name, metric in METRICS.items():
        if not metric.two:
            found = mean_over_prompts([row["metrics"][name] for row in rows], prompts)
            about = {"metric": name, "group": metric.group, "title": metric.title, "unit": metric.unit}
            lines.append(about | asdict(found))
    return lines


def _oracle(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The oracle's table; None unless it could judge every video."""
    from workbench.demo.evaluate import table

    records = [row["oracle"] for row in rows]
    return None if any(each is None for each in records) else table(records)


def _write_scores(rows: list[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    flat = [
        {"prompt": row["prompt"], "seed": row["seed"], **row["metrics"], **((row["oracle"] or {}).get("score", {}))}
        for row in rows
    ]
    with replacing(path) as temporary:
        pd.DataFrame(flat).to_csv(temporary, index=False)


def _json(value: dict[str, Any]) -> bytes:
    from workbench.call import plain

    return (json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
