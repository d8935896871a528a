"""The curves of a training as it goes: JSON lines, and TensorBoard beside them where asked for."""

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pare.training.log import LOG


class Curves:
    """A context that appends records to `folder/log.jsonl`, and their numbers to `folder/tensorboard`.

    A resumed training repeats the steps since its last state: the last record of a step holds, and TensorBoard is told to
    forget what came after `first`.
    """

    def __init__(self, folder: Path | None, first: int = 0, *, tensorboard: bool = False):
        self.folder, self.first, self.tensorboard = folder, first, tensorboard

    @classmethod
    def none(cls) -> "Curves":
        """Curves that are written nowhere, for the processes that do not write."""
        return cls(None)

    def __enter__(self) -> "Curves":
        self._stack, self._board, self._log = ExitStack(), None, None
        self._started = time.perf_counter()
        if self.folder is not None:
            path = self.folder / LOG
            torn = path.is_file() and not path.read_bytes().endswith(b"\n")
            self._log = self._stack.enter_context(path.open("a"))
            if torn:
                # A kill left half a line; what follows must not become a part of it.
                self._log.write("\n")
            if self.tensorboard:
                # Seconds of import.
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.first)
                self._stack.callback(self._board.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record: a step with its numbers, or with a dict of validation."""
        if self._log is None:
            return
        if "validation" not in record:
            record = record | {"seconds": round(time.perf_counter() - self._started, 2)}
        self._log.write(json.dumps(record) + "\n")
        self._log.flush()
        if self._board is not None:
            numbers = {f"validation/{name}": value for name, value in record.get("validation", {}).items()}
            numbers |= {
                f"training/{name}": value for name, value in record.items() if name not in ("step", "validation")
            }
            for name, value in numbers.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, record["step"])
            self._board.flush()
