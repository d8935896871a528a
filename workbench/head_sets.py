"""Named sets of self-attention heads: kept as JSON below the workspace, listed, loaded, and turned into masks."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analysis.runs import Run
from pare.errors import InputError
from pare.files import lies_inside, write_bytes
from pare.geometry import Clip
from pare.mask import Mask
from pare.versions import versions
from pare.width.budget import Counts, predict
from workbench.state import SET_NAME

FOLDER = "head-sets"
LARGEST = 4_000_000
"""Bytes of a file that is read: 14B has 1,600 heads, some 30 kB."""


class HeadSet(BaseModel):
    """A set of heads of one model: `members` are (block, head), zero-based, of `blocks` x `heads`.

    `made_from` says what they were chosen by (`what`), in which run, and the link of the view.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_name: Literal["pare-head-set/1"] = Field("pare-head-set/1", alias="schema")
    name: str
    model: dict[str, Any]
    blocks: int = Field(gt=0)
    heads: int = Field(gt=0)
    members: tuple[tuple[int, int], ...]
    made_from: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def array(self) -> np.ndarray:
        """True for the members [block, head]."""
        found = np.zeros((self.blocks, self.heads), bool)
        if self.members:
            found[tuple(np.transpose(self.members))] = True
        return found


def slug(name: str) -> str:
    """The name as files and links have it: small letters, digits and dashes.

    >>> slug("Temporal heads, τt 0.25")
    'temporal-heads-t-0-25'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    if SET_NAME.fullmatch(plain) is None:
        raise InputError("name", got=repr(name), expected="letters or digits", fix="for example temporal-heads")
    return plain


def of_run(run: Run, name: str, members: np.ndarray, made_from: Mapping[str, Any]) -> HeadSet:
    """The set of the heads that are true in `members` [block, head] of this run's model.

    Raises `InputError` for a name without a letter or digit, and for an empty set.
    """
    geometry = run.geometry
    if members.shape != (geometry.blocks, geometry.heads):
        expected = f"{[geometry.blocks, geometry.heads]} of the run's model"
        raise InputError("heads", got=list(members.shape), expected=expected, fix="choose them in this run")
    chosen = tuple((int(block), int(head)) for block, head in np.argwhere(members))
    if not chosen:
        raise InputError("heads", got="none", expected="at least one", fix="pick a head, or choose other heads")
    return HeadSet(
        schema="pare-head-set/1",
        name=slug(name),
        model=dict(run.manifest.model),
        blocks=geometry.blocks,
        heads=geometry.heads,
        members=chosen,
        made_from={"run": run.folder.resolve().name, "run_hash": run.hash, **made_from},
        versions=versions(),
    )


def save(workspace: Path, found: HeadSet) -> Path:
    """Write a set below the workspace in one piece. Raises `InputError` where another set has its name."""
    path = workspace / FOLDER / f"{found.name}.json"
    if not lies_inside(path, workspace):
        got = f"{path.parent}, which leads elsewhere"
        raise InputError("sets of heads", got=got, expected="a folder in the workspace", fix="replace the link")
    if path.exists():
        raise InputError(
            "name", got=f"{found.name}, which is there", expected="a new one", fix="another name, or delete it"
        )
    content = found.model_dump(by_alias=True)
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def load(workspace: Path, name: str) -> HeadSet:
    """The set of this name. Raises `InputError` where there is none and for a file that is no set of heads."""
    # The name is a part of a path.
    path = workspace / FOLDER / f"{name}.json"
    if SET_NAME.fullmatch(name) is None or not path.is_file():
        raise InputError("set of heads", got=name, expected="a saved one", fix="choose it in the list")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        if not lies_inside(path, workspace):
            raise ValueError("a link that leads elsewhere")
        found = HeadSet.model_validate(json.loads(path.read_text(encoding="utf-8")))
        inside = all(0 <= block < found.blocks and 0 <= head < found.heads for block, head in found.members)
        if not inside or found.name != name or not found.members:
            raise ValueError("heads outside of the model, or another name")
    except (ValueError, OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{FOLDER}/{name}.json", got=reason, expected="a set of heads", fix="delete it") from error
    return found


def names(workspace: Path) -> list[str]:
    """The names of all saved sets, in order."""
    folder = workspace / FOLDER
    if not folder.is_dir():
        return []
    return sorted(path.stem for path in folder.glob("*.json") if SET_NAME.fullmatch(path.stem))


def delete(workspace: Path, name: str) -> None:
    """Remove a set; one that is gone already needs nothing."""
    if SET_NAME.fullmatch(name):
        (workspace / FOLDER / f"{name}.json").unlink(missing_ok=True)


def check(found: HeadSet, run: Run) -> None:
    """Raise `InputError` unless the set is of the run's model, with both names."""
    geometry, own = run.geometry, run.manifest.model
    alike = (found.blocks, found.heads) == (geometry.blocks, geometry.heads)
    if not alike or found.model.get("config_hash") != own.get("config_hash"):
        raise InputError(
            f"set {found.name}",
            got=f"heads of {found.model.get('model_id')}, {found.blocks} × {found.heads}",
            expected=f"heads of {run.model_id}, {geometry.blocks} × {geometry.heads}",
            fix="open a run of that model, or choose another set",
        )


def mask_without(run: Run, members: np.ndarray, source: Mapping[str, Any]) -> Mask:
    """The mask that removes the heads true in `members` [block, head] and keeps everything else of the run's model.

    The same heads and `source` give the same bytes. Raises `InputError` where a block would keep none of its heads.
    """
    geometry, size = run.geometry, run.manifest.clip
    keep = ~members
    if not keep.any(axis=1).all():
        block = int(np.flatnonzero(~keep.any(axis=1))[0])
        raise InputError(
            "mask", got=f"all {geometry.heads} heads of block {block}", expected="one that stays", fix="leave one out"
        )
    counts = Counts(tuple(keep.sum(axis=1).tolist()), geometry.heads, geometry.ffn)
    clip = Clip(size["height"], size["width"], size["frames"])
    return Mask(
        self_heads=keep,
        cross_heads=np.ones_like(keep),
        neurons=np.ones((geometry.blocks, geometry.ffn), bool),
        metadata={
            "model": dict(run.manifest.model),
            "settings": dict(source),
            "predicted": predict(geometry, clip, counts),
            "versions": versions(),
        },
    )


def as_array(run: Run, heads: Iterable[tuple[int, int]]) -> np.ndarray:
    """True for these (block, head) [block, head]."""
    found = np.zeros((run.geometry.blocks, run.geometry.heads), bool)
    for block, head in heads:
        found[block, head] = True
    return found
