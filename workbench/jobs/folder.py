"""A job's folder: WORKSPACE/jobs/ID with log.txt, cost.json, artefacts/, and, once done, result.json and then manifest.json."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pare.files import write_bytes
from pare.versions import versions
from workbench.jobs.job import Cost, Job
from workbench.jobs.logs import redact

SCHEMA = "pare-job/1"
TAIL_BYTES = 1 << 20


@dataclass(frozen=True)
class JobFolder:
    """Where one job keeps its files; reading tolerates whatever is missing."""

    path: Path

    @property
    def artefacts(self) -> Path:
        return self.path / "artefacts"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def cost(self) -> Path:
        return self.path / "cost.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    def create(self) -> None:
        self.artefacts.mkdir(parents=True, exist_ok=True)

    def complete(self, job: Job, result: Mapping[str, Any]) -> None:
        """Writes the result and, last of all, the manifest: a folder with a manifest is whole."""
        write_json(self.result, result)
        files = [
            {"path": path.relative_to(self.artefacts).as_posix(), "bytes": path.stat().st_size}
            for path in sorted(self.artefacts.rglob("*"))
            if path.is_file() and not path.is_symlink()
        ]
        about = {"schema": SCHEMA, "id": job.id, "command": job.command, "arguments": dict(job.arguments)}
        write_json(self.manifest, {**about, "attempt": job.attempt, "versions": versions(), "files": files})

    def expect(self, cost: Cost) -> None:
        """Keeps what the job was expected to cost, so that it can be held against what it took."""
        write_json(self.cost, dataclasses.asdict(cost))

    def expected(self) -> Cost | None:
        """What was kept; None where nothing was, or nothing that can be read."""
        try:
            found = Cost(**json.loads(self.cost.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        numbers = (found.seconds, found.memory, found.disk)
        return found if all(each is None or isinstance(each, int | float) for each in numbers) else None

    def listed(self) -> Sequence[Path]:
        """The artefacts that the manifest lists; none while there is no manifest, or an unreadable one."""
        try:
            files = json.loads(self.manifest.read_text("utf-8"))["files"]
            paths = [(self.artefacts / file["path"]).resolve() for file in files]
        except (OSError, ValueError, KeyError, TypeError):
            return ()
        inside = self.artefacts.resolve()
        return tuple(path for path in paths if path.is_relative_to(inside) and path.is_file())

    def tail(self, lines: int) -> str:
        """The log's last lines, tokens blanked; of a line that was redrawn (a progress bar), its last state."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        kept = text.split("\n")
        if kept and not kept[-1]:
            kept.pop()
        return redact("\n".join(line.rstrip("\r").rpartition("\r")[2] for line in kept[-lines:] if lines > 0))


def write_json(path: Path, value: Any) -> None:
    """Writes JSON in one piece, for people too."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
