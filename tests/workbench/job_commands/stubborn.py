"""A command that reaches no step: it sleeps, and may even swallow the interruption."""

import time

from pare.errors import Cancelled
from pare.progress import Progress, silent


def stubborn(*, swallow: bool = False, progress: Progress = silent) -> dict[str, object]:
    """Sleeps for a minute without a report."""
    end = time.monotonic() + 60
    print("sleeping", flush=True)
    while time.monotonic() < end:
        try:
            time.sleep(end - time.monotonic())
        except Cancelled:
            if not swallow:
                raise
    return {}
