"""The mask file: what is saved is what is loaded, and only a mask that fits is accepted."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from pare.errors import InputError
from pare.geometry import Geometry
from pare.mask import Mask, check, diff, load, save, to_json

GEOMETRY = Geometry(blocks=2, heads=4, head_dim=12, ffn=8, in_channels=4, out_channels=4, text_dim=16)
MODEL = {"model_id": "tiny", "config_hash": "abc"}


def mask(seed: int = 0, **metadata) -> Mask:
    generator = np.random.default_rng(seed)
    heads = [np.array([generator.permutation([True, True, True, False]) for _ in range(2)]) for _ in range(2)]
    return Mask(*heads, np.ones((2, 8), bool), metadata)


def test_round_trip(tmp_path):
    original = mask(model=MODEL, settings={"ratio": 0.3, "tau_s": 0.7, "scorer": "pare"}, run={"hash": "σ"})
    loaded = load(save(original, tmp_path / "a.safetensors"))
    for part in ("self_heads", "cross_heads", "neurons"):
        np.testing.assert_array_equal(getattr(loaded, part), getattr(original, part))
    assert loaded.metadata == original.metadata
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_same_mask_is_the_same_bytes_in_another_process(tmp_path):
    save(mask(model=MODEL, settings={"ratio": 0.3}, run={}, versions={"b": "1", "a": "2"}), tmp_path / "a")
    metadata = "versions={'a': '2', 'b': '1'}, run={}, settings={'ratio': 0.3}, model=MODEL"
    code = f"from tests.pare.test_mask import *; save(mask({metadata}), {str(tmp_path / 'b')!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_mask_from_elsewhere_without_metadata_is_fine(tmp_path):
    original = mask()
    arrays = {part: getattr(original, part) for part in ("self_heads", "cross_heads", "neurons")}
    save_file(arrays, tmp_path / "plain.safetensors")
    loaded = load(tmp_path / "plain.safetensors")
    assert loaded.metadata == {} and loaded.model_id == "unknown"
    check(loaded, GEOMETRY, MODEL)


def test_a_fitting_mask_passes_and_another_models_is_refused_with_both_names():
    check(mask(model=MODEL), GEOMETRY, MODEL)
    other = {"model_id": "other", "config_hash": "def"}
    with pytest.raises(InputError, match=r"other.*tiny"):
        check(mask(model=other), GEOMETRY, MODEL)
    wide = Geometry(blocks=2, heads=5, head_dim=12, ffn=8, in_channels=4, out_channels=4, text_dim=16)
    with pytest.raises(InputError, match=r"\[2, 4\] of model tiny.*\[2, 5\] of model wide"):
        check(mask(model=MODEL), wide, {"model_id": "wide"})


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="expected a mask file"):
        load(tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"no")
    with pytest.raises(InputError, match="safetensors"):
        load(tmp_path / "bad")
    save_file({"weight": np.ones(3)}, tmp_path / "weights")
    with pytest.raises(InputError, match="weight"):
        load(tmp_path / "weights")
    for metadata in ("[]", '{"model": 3}', '{"settings": "paper"}', '{"schema": "pare-mask/2"}'):
        arrays = {part: np.ones((1, 2), bool) for part in ("self_heads", "cross_heads", "neurons")}
        save_file(arrays, tmp_path / "odd", metadata={"pare": metadata})
        with pytest.raises(InputError, match=r"other metadata|pare-mask/2"):
            load(tmp_path / "odd")


def test_arrays_that_are_no_mask_are_refused():
    good = np.ones((2, 4), bool)
    with pytest.raises(InputError, match="booleans"):
        Mask(good.astype(float), good, good)
    with pytest.raises(InputError, match="booleans"):
        Mask(good, good[:1], good)
    empty = good.copy()
    empty[1] = False
    with pytest.raises(InputError, match="block 1 keeps none"):
        Mask(good, empty, good)


def test_diff_counts_what_changed():
    a = Mask(np.array([[True, True, False]]), np.ones((1, 3), bool), np.ones((1, 4), bool))
    b = Mask(np.array([[True, False, True]]), np.ones((1, 3), bool), np.ones((1, 4), bool))
    found = diff(a, b)
    assert found["self_heads"] == {
        "both": 1, "only_a": 1, "only_b": 1, "overlap": 1 / 3, "blocks": [1 / 3], "changed": [[0, 1], [0, 2]],
    }  # fmt: skip
    assert found["cross_heads"]["overlap"] == 1
    with pytest.raises(InputError, match="same shape"):
        diff(a, mask())


def test_json_lists_what_stays():
    document = to_json(mask(model=MODEL))
    assert document["schema"] == "pare-mask/1" and document["model"] == MODEL
    assert document["counts"]["self_heads"] == [3, 3]
    assert [len(kept) for kept in document["kept"]["self_heads"]] == [3, 3]
    assert "neurons" not in document["kept"]
