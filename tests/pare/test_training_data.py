"""Samples on disk: what is written is read, an interrupted encoding goes on, and the order hangs on the seed alone."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pare.errors import Cancelled, InputError
from pare.processes import Process
from pare.training.data import LatentData, padded, sample_order, shard_path, trimmed, write_samples

ABOUT = {"model": {"model_id": "tiny"}, "text_tokens": 8}


def encode(index: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(index)
    text = torch.zeros(8, 4)
    text[: 2 + index % 3] = torch.randn(2 + index % 3, 4, generator=generator)
    return {
        "latents": torch.randn(2, 3, 2, 2, generator=generator),
        "text": text,
        "image": torch.randn(1, 5, 6, generator=generator),
        "condition": torch.randn(3, 3, 2, 2, generator=generator),
    }


def write(folder, captions=("a", "b", "c", "d", "e"), **more):
    write_samples(
        folder, captions, more.pop("encode", encode), ABOUT, empty=lambda: torch.zeros(8, 4), shard_samples=2, **more
    )


def test_samples_come_back_as_they_were(tmp_path):
    write(tmp_path / "data")
    data = LatentData(tmp_path / "data")
    assert len(data) == 5 and data.captions == ["a", "b", "c", "d", "e"]
    for index in range(5):
        there, wanted = data.sample(index), encode(index)
        assert torch.equal(there["text"], wanted["text"]) and torch.equal(there["image"], wanted["image"])
        assert torch.equal(there["latents"], wanted["latents"].half().float())
    batch = data.batch([3, 1])
    assert batch.clean.shape == (2, 2, 3, 2, 2) and data.empty.shape == (8, 4)
    inputs = batch.inputs(batch.clean, torch.tensor([0.5, 0.25]))
    assert inputs["hidden_states"].shape[1] == 5 and inputs["timestep"].tolist() == [500.0, 250.0]
    assert torch.equal(inputs["encoder_hidden_states_image"][0], encode(3)["image"][0])


def test_an_interrupted_encoding_keeps_its_shards_and_goes_on(tmp_path):
    encoded = []

    def counting(index):
        encoded.append(index)
        return encode(index)

    def stop(done, total, message=""):
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        write(tmp_path / "data", encode=counting, progress=stop)
    with pytest.raises(InputError, match="1 of 3 shards"):
        LatentData(tmp_path / "data")
    write(tmp_path / "data", encode=counting)
    assert encoded == [0, 1, 2, 2, 3, 4]
    write(tmp_path / "whole")
    files = [path.relative_to(tmp_path / "data") for path in sorted((tmp_path / "data").rglob("*")) if path.is_file()]
    assert all((tmp_path / "data" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in files)


def test_processes_share_the_shards(tmp_path):
    for rank in (1, 0):
        write(tmp_path / "data", process=Process(rank, 2, rank))
    write(tmp_path / "whole")
    for number in range(3):
        assert shard_path(tmp_path / "data", number).read_bytes() == shard_path(tmp_path / "whole", number).read_bytes()


def test_other_samples_and_other_folders_are_refused(tmp_path):
    write(tmp_path / "data")
    with pytest.raises(InputError, match="captions"):
        write(tmp_path / "data", captions=("a", "b"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        write(tmp_path / "other")
    with pytest.raises(InputError, match=r"data\.json"):
        LatentData(tmp_path / "nowhere")
    (tmp_path / "other" / "data.json").write_text(json.dumps({"schema": "something"}))
    with pytest.raises(InputError, match="not pare-latents/1"):
        LatentData(tmp_path / "other")
    with pytest.raises(InputError, match="--held-out"):
        LatentData(tmp_path / "data", held_out=5)


def test_held_out_samples_are_never_trained_on(tmp_path):
    write(tmp_path / "data")
    data = LatentData(tmp_path / "data", held_out=2)
    kept = [data.sample(index)["latents"] for index in range(3)]
    for position in range(6):
        batch = data.at(position, 2, seed=3)
        assert all(any(torch.equal(clean, each) for each in kept) for clean in batch.clean)


@settings(max_examples=30)
@given(samples=st.integers(1, 9), size=st.integers(1, 5), seed=st.integers(0, 5), epochs=st.integers(1, 3))
def test_every_epoch_has_every_sample_once_in_another_order(samples, size, seed, epochs):
    stream = [index for position in range(samples * epochs) for index in sample_order(samples, position, size, seed)]
    for epoch in range(epochs):
        assert sorted(stream[epoch * samples : (epoch + 1) * samples]) == list(range(samples))
    # A batch of two positions is two batches: nothing hangs on how the stream is cut.
    together = sample_order(samples, 0, 2 * size, seed)
    assert together == [index for position in (0, 1) for index in sample_order(samples, position, size, seed)]


def test_the_order_changes_with_the_epoch_and_the_seed():
    orders = [sample_order(50, position, 50, seed) for position, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(order) for order in orders}) == 3


def test_texts_lose_only_their_padding():
    text = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert torch.equal(padded(trimmed(text), 3), text)
    assert len(trimmed(torch.zeros(3, 2))) == 1


def test_samples_may_share_a_text(tmp_path):
    text = torch.ones(2, 4)
    write(tmp_path / "data", encode=lambda index: {"latents": torch.zeros(1, 1, 1, 1), "text": text})
    assert all(torch.equal(LatentData(tmp_path / "data").sample(index)["text"][:2], text) for index in range(5))
