"""What a command writes goes to its job's log, without access tokens."""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")


def redact(text: str) -> str:
    """The text with Hugging Face tokens blanked: those in the environment, and whatever looks like one.

    >>> redact("Authorization: Bearer hf_abcDEF123456789")
    'Authorization: Bearer hf_***'
    """
    for secret in filter(None, map(os.environ.get, TOKEN_VARIABLES)):
        if len(secret) >= 8:
            text = text.replace(secret, "hf_***")
    return TOKEN.sub("hf_***", text)


class RedactedStream(io.TextIOBase):
    """A text stream that hands whole lines on to another one, tokens blanked.

    It holds an unfinished line until the line ends or somebody flushes, so that no token passes in two halves.
    """

    def __init__(self, stream: TextIO):
        self._stream, self._line = stream, ""

    def write(self, text: str) -> int:
        self._line += text
        end = max(self._line.rfind("\n"), self._line.rfind("\r")) + 1
        if end:
            self._stream.write(redact(self._line[:end]))
            self._stream.flush()
            self._line = self._line[end:]
        return len(text)

    def flush(self) -> None:
        line, self._line = self._line, ""
        self._stream.write(redact(line))
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


@contextmanager
def redirected(path: Path) -> Iterator[None]:
    """Sends descriptors 1 and 2 to the end of a file: what Python, C libraries, child processes and a crash write."""
    _flush()
    saved = os.dup(1), os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        yield
    finally:
        _flush()
        for descriptor, target in zip(saved, (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.close(log)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
