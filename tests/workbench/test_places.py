"""What a browser may name: nothing outside the workspace, data/ and the folders named at start."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pare import mask as masks
from pare.errors import InputError
from workbench.pages.ablation import MASKS_FOLDER
from workbench.places import Places


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for folder in ("workspace/jobs/1/artefacts/run", "data/runs/demo", "mine", "secret"):
        (tmp_path / folder).mkdir(parents=True)
    for run in ("workspace/jobs/1/artefacts/run", "data/runs/demo", "mine", "secret"):
        (tmp_path / run / "run.json").write_text("{}")
    (tmp_path / "secret" / "v.mp4").write_bytes(b"secret")
    (tmp_path / "workspace" / "v.mp4").write_bytes(b"0123456789")
    (tmp_path / "workspace" / "way-out").symlink_to(tmp_path / "secret")
    (tmp_path / "workspace" / "out.mp4").symlink_to(tmp_path / "secret" / "v.mp4")
    return Places((tmp_path / "workspace").resolve(), ((tmp_path / "mine").resolve(),), (tmp_path / "data").resolve())


ESCAPES = [
    "",
    "nowhere/v.mp4",
    "workspace/../secret/v.mp4",
    "workspace/./v.mp4",
    "workspace//v.mp4",
    "workspace/way-out/v.mp4",
    "workspace/out.mp4",
    "workspace/..",
    "workspace/..\\secret\\v.mp4",
    "workspace/v.mp4\0.txt",
    "workspace/missing.mp4",
    "../secret/v.mp4",
    "/etc/passwd",
    "workspace//etc/passwd",
    "workspace/C:/v.mp4",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_no_name_leaves_its_place(places, name):
    with pytest.raises(InputError):
        places.find(name)
    assert name not in places and "workspace/v.mp4" in places


@given(st.lists(st.sampled_from(["..", ".", "", "way-out", "v.mp4", "out.mp4", "/", "\\"]), max_size=6))
def test_whatever_is_found_lies_inside(tmp_path_factory, steps):
    base = tmp_path_factory.mktemp("places")
    (base / "workspace").mkdir()
    (base / "workspace" / "v.mp4").touch()
    (base / "workspace" / "way-out").symlink_to(base)
    place = Places((base / "workspace").resolve(), data=base / "data")
    try:
        found = place.find("/".join(["workspace", *steps]))
    except InputError:
        return
    assert found.is_relative_to((base / "workspace").resolve())


def test_names_round_trip_and_runs_are_found_in_order(places):
    assert places.runs() == ["mine", "data/runs/demo", "workspace/jobs/1/artefacts/run"]
    for name in places.runs():
        assert places.name_of(places.find(name)) == name
    assert places.name_of(Path("/")) is None


def test_masks_are_told_by_their_head_and_not_looked_for_inside_runs_and_models(places, tmp_path):
    keep = np.ones((2, 4), bool)
    # What an ablation switches off is no mask to choose from.
    for folder in ("workspace/jobs/1/artefacts", "data/masks", "mine", "secret", f"workspace/{MASKS_FOLDER}"):
        masks.save(masks.Mask(keep, keep, keep), tmp_path / folder / "mask.safetensors")
    (tmp_path / "data" / "masks" / "other.safetensors").write_bytes(b"\x10" + bytes(7) + b'{"a":1}         ')
    (tmp_path / "data" / "masks" / "way-out.safetensors").symlink_to(tmp_path / "secret" / "mask.safetensors")
    # mine holds a run.json, so what lies there is the run's.
    assert places.masks() == ["data/masks/mask.safetensors", "workspace/jobs/1/artefacts/mask.safetensors"]
    (tmp_path / "mine" / "run.json").unlink()
    (tmp_path / "data" / "masks" / "evaluation.json").touch()
    assert places.masks()[0] == "mine/mask.safetensors" and places.evaluations() == ["data/masks"]


def test_videos_are_named_alone_or_by_their_folder_and_not_those_of_runs(places, tmp_path):
    (tmp_path / "data" / "films").mkdir()
    for name in ("a.mp4", "b.webm", "note.txt"):
        (tmp_path / "data" / "films" / name).touch()
    (tmp_path / "mine" / "v.mp4").touch()
    assert places.videos() == ["data/films", "workspace/v.mp4"]


def test_alike_named_folders_stay_apart(tmp_path):
    for folder in ("a/runs", "b/runs", "c/data", "d/..hidden name"):
        (tmp_path / folder).mkdir(parents=True)
    places = Places(tmp_path / "w", tuple(tmp_path / f for f in ("a/runs", "b/runs", "c/data", "d/..hidden name")))
    assert list(places.roots) == ["runs", "runs-2", "data-2", "hidden-name", "data", "workspace"]


def test_the_server_process_reads_the_same_places(places):
    again = Places.from_environment(places.environment())
    assert again == places
    assert Places.from_environment({}).workspace == Path(os.getcwd()).resolve() / "workspace"
