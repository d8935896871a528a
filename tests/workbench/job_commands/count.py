"""Writes one file per step, the way a capture writes one per sample."""

import os
import time
from pathlib import Path

from pare.errors import InputError
from pare.progress import Progress, silent


def count(
    label: str = "",
    *,
    out: Path,
    steps: int = 3,
    seconds: float = 0.02,
    fail_at: int | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> dict[str, object]:
    """Counts to `steps`, `seconds` each; `resume` keeps the steps that are there and waits for nothing.

    Returns how many steps this attempt took.
    """
    if steps < 1:
        raise InputError("--steps", got=steps, expected="1 or more", fix="for example --steps 4")
    out.mkdir(parents=True, exist_ok=True)
    taken = 0
    for step in range(steps):
        target = out / f"{step:03d}.txt"
        if resume and target.exists():
            continue
        if step == fail_at and not resume:
            raise RuntimeError(f"broke at step {step}")
        if not resume:
            time.sleep(seconds)
        partial = target.with_suffix(".tmp")
        partial.write_text(f"{label}{step}")
        os.replace(partial, target)
        taken += 1
        print(f"step {step}", flush=True)
        progress(step + 1, steps, f"step {step}")
    return {"taken": taken, "resumed": resume, "out": out, "pid": os.getpid()}
