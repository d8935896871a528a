"""Named sets of heads: what is written is read again, damage and strangers are refused, a set becomes a mask."""

import json

import numpy as np
import pytest

from pare import mask as masks
from pare.errors import InputError
from pare.width.unit_cost import head_alone
from tests.runs_fixture import make_run
from workbench import head_sets


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", 3, 4, steps=2, samples=2)


def members(run, *cells):
    return head_sets.as_array(run, cells)


def test_a_set_is_read_as_it_was_written(run, tmp_path):
    made = head_sets.of_run(run, "My heads!", members(run, (2, 1), (0, 3)), {"what": "picked heads (2)"})
    path = head_sets.save(tmp_path, made)
    assert path.name == "my-heads.json" and json.loads(path.read_text())["schema"] == "pare-head-set/1"
    found = head_sets.load(tmp_path, "my-heads")
    assert found == made and found.members == ((0, 3), (2, 1)) and found.made_from["run_hash"] == run.hash
    head_sets.check(found, run)
    assert head_sets.names(tmp_path) == ["my-heads"] and [each.name for each in tmp_path.glob("head-sets/*")] == [
        path.name
    ]
    with pytest.raises(InputError, match="which is there"):
        head_sets.save(tmp_path, made)
    head_sets.delete(tmp_path, "my-heads")
    head_sets.delete(tmp_path, "my-heads")
    assert head_sets.names(tmp_path) == []


@pytest.mark.parametrize("name", ["", "—", "../../etc"])
def test_names_stay_in_their_folder(run, tmp_path, name):
    if name == "../../etc":
        head_sets.save(tmp_path, head_sets.of_run(run, name, members(run, (0, 0)), {}))
        assert head_sets.names(tmp_path) == ["etc"]
    else:
        with pytest.raises(InputError, match="letters or digits"):
            head_sets.of_run(run, name, members(run, (0, 0)), {})
    with pytest.raises(InputError, match="expected a saved one"):
        head_sets.load(tmp_path, name)


@pytest.mark.parametrize(
    "change", [{"members": [[3, 0]]}, {"members": []}, {"name": "other"}, {"more": 1}, {"blocks": 0}, None]
)
def test_a_damaged_set_is_one_line(run, tmp_path, change):
    path = head_sets.save(tmp_path, head_sets.of_run(run, "one", members(run, (0, 0)), {}))
    path.write_text("{" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=r"head-sets/one\.json: got .*fix: delete it") as caught:
        head_sets.load(tmp_path, "one")
    assert "\n" not in str(caught.value)


def test_a_set_of_another_model_names_both(run, tmp_path):
    other = make_run(tmp_path / "other", 2, 4, steps=2, samples=2)
    found = head_sets.of_run(other, "one", members(other, (0, 0)), {})
    with pytest.raises(InputError, match="2 × 4; expected heads of random, 3 × 4"):
        head_sets.check(found, run)


def test_a_set_becomes_a_mask_without_its_heads(run, tmp_path):
    off = members(run, (0, 0), (0, 1), (2, 3))
    made = head_sets.mask_without(run, off, {"removed": "three"})
    first, second = (masks.save(made, tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert first.read_bytes() == second.read_bytes()
    found = masks.load(first)
    masks.check(found, run.geometry, run.manifest.model)
    assert np.array_equal(found.self_heads, ~off) and found.cross_heads.all() and found.neurons.all()
    predicted = found.metadata["predicted"]
    saved = predicted["dense_parameters"] - predicted["parameters"]
    assert saved == 3 * head_alone(run.geometry)["parameters"]["saved"]
    whole = members(run, *((1, head) for head in range(4)))
    with pytest.raises(InputError, match="all 4 heads of block 1"):
        head_sets.mask_without(run, whole, {})
    with pytest.raises(InputError, match="at least one"):
        head_sets.of_run(run, "none", members(run), {})
