"""Where the app may read and write: the workspace, data/ and the folders named at start, and nothing else.

Everything that a browser can name (a run in a link, a video in an address) is `place/relative/path` and passes through
`Places.find`, which follows no symbolic link and no `..` out of its place.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pare.errors import InputError

PROJECT = Path(__file__).resolve().parent.parent
WORKSPACE_VARIABLE = "PARE_WORKSPACE"
FOLDERS_VARIABLE = "PARE_FOLDERS"
DATA_VARIABLE = "PARE_DATA"
VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".avi")
DEPTH = 5
"""How many folders below a place a run may lie: a job's run is jobs/ID/artefacts/NAME below the workspace."""


@dataclass(frozen=True)
class Places:
    """The workspace (written and read), data/ and the named folders (only read), each resolved once."""

    workspace: Path
    folders: tuple[Path, ...] = ()
    data: Path = PROJECT / "data"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Places":
        """The places that `pare app` handed to its server; a plain `streamlit run app.py` gets ./workspace.

        PARE_DATA names another folder than the project's own data/.
        """
        named = environment.get(FOLDERS_VARIABLE, "").split(os.pathsep)
        workspace = Path(environment.get(WORKSPACE_VARIABLE) or "workspace")
        data = Path(environment.get(DATA_VARIABLE) or PROJECT / "data")
        return cls(workspace.resolve(), tuple(Path(folder).resolve() for folder in named if folder), data.resolve())

    def environment(self) -> dict[str, str]:
        """What `from_environment` reads back, for the server's process."""
        return {
            WORKSPACE_VARIABLE: str(self.workspace),
            FOLDERS_VARIABLE: os.pathsep.join(str(folder) for folder in self.folders),
            DATA_VARIABLE: str(self.data),
        }

    @property
    def roots(self) -> dict[str, Path]:
        """Short name → folder; named folders come first and keep their own names, numbered where two are alike."""
        roots: dict[str, Path] = {}
        for folder in self.folders:
            stem = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip(".-") or "folder"
            name, number = stem, 2
            while name in roots or name in ("data", "workspace"):
                name, number = f"{stem}-{number}", number + 1
            roots[name] = folder
        return roots | {"data": self.data, "workspace": self.workspace}

    def find(self, name: str) -> Path:
        """The existing file or folder that `place/relative/path` names.

        Raises `InputError` for a place that is not there, a path that leaves its place (by `..`, by an absolute part
        or through a symbolic link) and for what does not exist.
        """
        place, _, relative = name.partition("/")
        root = self.roots.get(place)
        steps = relative.split("/") if relative else []
        clean = root is not None and not any(
            step in ("", ".", "..") or "\\" in step or "\0" in step or ":" in step for step in steps
        )
        if root is not None and clean:
            try:
                path = root.joinpath(*steps).resolve(strict=True)
            except (OSError, RuntimeError):
                path = None
            if path is not None and path.is_relative_to(root.resolve()):
                return path
        raise InputError(
            "path",
            got=repr(name[:80]),
            expected="an existing path inside the workspace, data/ or a folder named at start",
            fix="pare app FOLDER opens another folder",
        )

    def __contains__(self, name: object) -> bool:
        """Whether `find` finds something by this name."""
        try:
            return isinstance(name, str) and self.find(name).exists()
        except (InputError, OSError):
            return False

    def name_of(self, path: Path) -> str | None:
        """The `place/relative/path` that names an existing path, or None outside every place."""
        resolved = path.resolve()
        for place, root in self.roots.items():
            if resolved == root.resolve():
                return place
            if resolved.is_relative_to(root.resolve()):
                return f"{place}/{resolved.relative_to(root.resolve()).as_posix()}"
        return None

    def runs(self) -> list[str]:
        """Names of the folders that hold a run.json, named folders first, then data/, then the workspace."""
        return self._holding("run.json")

    def pipelines(self) -> list[str]:
        """Names of the folders that hold a diffusers pipeline (model_index.json), in the same order."""
        return self._holding("model_index.json")

    def trainings(self) -> list[str]:
        """Names of the folders that hold a training.json, the state and the log of a distillation, in the same order."""
        return self._holding("training.json")

    def samples(self) -> list[str]:
        """Names of the folders that hold a data.json, encoded training samples, in the same order."""
        return self._holding("data.json")

    def evaluations(self) -> list[str]:
        """Names of the folders that hold an evaluation.json, in the same order."""
        return self._holding("evaluation.json")

    def answers(self) -> list[str]:
        """Names of the folders that hold an evidence.json, answers of `pare evidence`, in the same order."""
        return self._holding("evidence.json")

    def videos(self) -> list[str]:
        """Names of videos outside runs, evaluations and models, in the same order: the file where a folder has one alone,
        else the folder."""
        found: dict[Path, list[str]] = {}
        for place, root in self.roots.items():
            names: dict[Path, list[str]] = {}
            for path in _files_below(root, VIDEOS, without=("run.json", "evaluation.json", "model_index.json")):
                names.setdefault(path.parent, []).append(f"{place}/{path.relative_to(root).as_posix()}")
            for folder, own in names.items():
                found.setdefault(folder.resolve(), own)
        return [own[0] if len(own) == 1 else own[0].rpartition("/")[0] for own in found.values()]

    def masks(self) -> list[str]:
        """Names of the pruning masks, told by the head of the file; none inside runs and models, in the same order."""
        # With it comes numpy, which the command line does not need to start.
        from pare.mask import is_mask

        found: dict[Path, str] = {}
        for place, root in self.roots.items():
            for path in _files_below(root, ".safetensors", without=("run.json", "model_index.json")):
                if is_mask(path):
                    found.setdefault(path.resolve(), f"{place}/{path.relative_to(root).as_posix()}")
        return list(found.values())

    def _holding(self, file: str) -> list[str]:
        seen: dict[Path, str] = {}
        for place, root in self.roots.items():
            for folder in _folders_with(root, file):
                relative = folder.relative_to(root).as_posix()
                seen.setdefault(folder.resolve(), place if relative == "." else f"{place}/{relative}")
        return list(seen.values())


def _folders_with(root: Path, file: str) -> Iterator[Path]:
    """Folders below `root` that hold `file`, sorted; hidden folders, links and what lies inside a hit are left out."""
    for here, folders, files in os.walk(root, followlinks=False):
        depth = len(Path(here).relative_to(root).parts)
        if file in files:
            yield Path(here)
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEPTH else []


def _files_below(root: Path, ending: str | tuple[str, ...], without: tuple[str, ...]) -> Iterator[Path]:
    """Files below `root` with this ending, sorted; folders that hold a file of `without`, hidden ones and links are left."""
    for here, folders, files in os.walk(root, followlinks=False):
        depth = len(Path(here).relative_to(root).parts)
        if any(name in files for name in without):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEPTH else []
        for name in sorted(files):
            if name.endswith(ending) and not name.startswith(".") and not (Path(here) / name).is_symlink():
                yield Path(here) / name
