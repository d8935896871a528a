"""Training state: no pickle, small parts, whole at any moment."""

import json

import torch

from pare.training.state import load_state, save_state, split_parts, steps_done


def test_state_round_trip_is_exact(tmp_path):
    tensors = {"model.a": torch.randn(3, 4), "first.a": torch.randn(3, 4).double()}
    save_state(tmp_path / "state", tensors, {"step": 7})
    loaded, record = load_state(tmp_path / "state")
    assert record == {"step": 7}
    assert loaded.keys() == tensors.keys()
    assert all(
        torch.equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in tensors
    )


def test_parts_hold_at_most_their_bytes_and_every_tensor_once():
    tensors = {f"t{number}": torch.zeros(number + 1) for number in range(20)}
    parts = split_parts(tensors, part_bytes=100)
    assert sorted(name for part in parts for name in part) == sorted(tensors)
    assert all(sum(t.numel() * 4 for t in part.values()) <= 100 for part in parts)


def test_a_state_half_written_does_not_hide_the_last_whole_one(tmp_path):
    folder = tmp_path / "state"
    save_state(folder, {"a": torch.ones(2)}, {"step": 1})
    (tmp_path / "state.new").mkdir()
    (tmp_path / "state.new" / "tensors-000.safetensors").write_bytes(b"half")
    assert load_state(folder)[1]["step"] == 1 == steps_done(folder)


def test_a_kill_between_the_two_renames_still_leaves_a_state(tmp_path):
    folder = tmp_path / "state"
    save_state(folder, {"a": torch.ones(2)}, {"step": 1})
    folder.rename(tmp_path / "state.old")
    (tmp_path / "state.new").mkdir()
    (tmp_path / "state.new" / "state.json").write_text(json.dumps({"step": 2}))
    assert load_state(folder)[1]["step"] == 2 == steps_done(folder)


def test_no_state_is_none(tmp_path):
    assert load_state(tmp_path / "state") is None
    assert steps_done(tmp_path / "state") == 0
