"""Writes to every outlet a command has."""

import logging
import os
import subprocess
import sys

from pare.progress import Progress, silent


def speak(*, secret: str, progress: Progress = silent) -> dict[str, object]:
    """Prints, logs, writes past Python, lets a child print, and fails with the secret in the message."""
    print("printed", secret)
    logging.basicConfig(stream=sys.stderr)
    logging.getLogger("tests").warning("logged %s", secret)
    os.write(1, b"written past Python\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    raise RuntimeError(f"denied for {secret}\nsecond line")
