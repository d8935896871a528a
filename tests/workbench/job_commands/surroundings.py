"""Says what it finds around it when it is imported."""

import os
import sys

from pare.progress import Progress, silent

THREADS = os.environ.get("OMP_NUM_THREADS")


def surroundings(*, progress: Progress = silent) -> dict[str, object]:
    """Returns the thread count at import, and whether torch was there before the command asked for it."""
    return {"threads": THREADS, "torch": "torch" in sys.modules}
