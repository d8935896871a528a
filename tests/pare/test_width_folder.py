"""Pruning on disk: the same student as in memory, one block at a time, whole files or none."""

import json

import pytest
import torch
from safetensors import safe_open

from pare.errors import Cancelled, InputError
from pare.transformer import PareWanTransformer3DModel
from pare.width.card import model_card
from pare.width.cut_error import cut_errors
from pare.width.folder import prune_folder
from pare.width.surgery import plan_cut, prune
from pare.width.weight_files import INDEX, WeightFiles
from tests.students import BLOCKS, KINDS, full_mask, inputs, measured_moments, probe, random_mask, teacher, velocity


def read_config(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("qk_norm", "compensate", "shards"), [("fold", True, True), ("exact", False, False)])
def test_the_student_on_disk_is_the_one_in_memory(kind, qk_norm, compensate, shards, tmp_path):
    model, mask = teacher(kind), random_mask()
    moments = measured_moments(model, inputs(kind, 7))
    expected = prune(model, mask, moments, qk_norm, compensate)
    source, out = tmp_path / "source", tmp_path / "out"
    model.save_pretrained(source, max_shard_size="20KB" if shards else "1GB")
    out.mkdir()
    seen = []
    report = prune_folder(
        source,
        out,
        plan_cut(read_config(source), mask, moments, qk_norm, compensate),
        max_shard_bytes=30_000 if shards else 2**30,
        probe=probe(kind),
        progress=lambda done, total, message: seen.append((done, total)),
    )
    found = PareWanTransformer3DModel.from_pretrained(out)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.state_dict().items())
    assert torch.equal(velocity(found, inputs(kind)), velocity(expected, inputs(kind)))
    assert report.errors == cut_errors(model, expected, mask, probe(kind), moments if compensate else None)
    assert report.parameters == sum(each.numel() for each in expected.parameters())
    assert report.dense_parameters == sum(each.numel() for each in model.parameters())
    assert report.weight_bytes == sum(each.nbytes for each in expected.parameters())
    assert (out / INDEX).is_file() == shards and seen[-1] == (BLOCKS, BLOCKS)
    assert {path.suffix for path in out.iterdir()} == {".json", ".safetensors"}


def test_one_block_of_the_base_is_read_at_a_time(tmp_path, monkeypatch):
    model, reads = teacher("t2v"), []
    model.save_pretrained(tmp_path / "source")
    (tmp_path / "out").mkdir()
    read = WeightFiles.read

    def watched(self, names):
        names = list(names)
        reads.append({name.split(".")[1] if name.startswith("blocks.") else "outside" for name in names})
        return read(self, names)

    monkeypatch.setattr(WeightFiles, "read", watched)
    cut = plan_cut(read_config(tmp_path / "source"), random_mask(), qk_norm="exact")
    prune_folder(tmp_path / "source", tmp_path / "out", cut)
    assert reads == [{"outside"}, {"0"}, {"1"}, {"2"}]


def test_a_full_mask_writes_the_base_model(tmp_path):
    model = teacher("i2v")
    model.save_pretrained(tmp_path / "source")
    (tmp_path / "out").mkdir()
    report = prune_folder(
        tmp_path / "source", tmp_path / "out", plan_cut(read_config(tmp_path / "source"), full_mask(), qk_norm="none")
    )
    assert all(each.dense == 0 and each.masking == 0 for each in report.errors)
    found = PareWanTransformer3DModel.from_pretrained(tmp_path / "out")
    assert torch.equal(velocity(found, inputs("i2v")), velocity(model, inputs("i2v")))


def test_precision_of_what_is_written(tmp_path):
    teacher("t2v").save_pretrained(tmp_path / "source")
    (tmp_path / "out").mkdir()
    cut = plan_cut(read_config(tmp_path / "source"), random_mask(), qk_norm="none")
    prune_folder(tmp_path / "source", tmp_path / "out", cut, dtype=torch.bfloat16, measure=False)
    with safe_open(tmp_path / "out" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        stored = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 (not a dict)
    assert stored["blocks.0.attn1.to_q.weight"] == torch.bfloat16
    assert stored["blocks.0.scale_shift_table"] == stored["blocks.0.norm2.weight"] == torch.float32


def test_half_precision_bases_are_measured_too(tmp_path):
    teacher("i2v").to(torch.bfloat16).save_pretrained(tmp_path / "source")
    (tmp_path / "out").mkdir()
    cut = plan_cut(read_config(tmp_path / "source"), random_mask(), qk_norm="exact")
    report = prune_folder(tmp_path / "source", tmp_path / "out", cut)
    assert max(each.masking for each in report.errors) < 1e-2


@pytest.mark.parametrize("change", ["less", "more", "none", "torn"])
def test_weights_that_are_not_those_of_the_config_are_refused(change, tmp_path):
    model, source = teacher("t2v"), tmp_path / "source"
    (tmp_path / "out").mkdir()
    model.save_pretrained(source, max_shard_size="20KB" if change == "torn" else "1GB")
    if change == "less":
        (source / "config.json").write_text(json.dumps(read_config(source) | {"num_layers": BLOCKS + 1}))
    elif change == "more":
        (source / "config.json").write_text(json.dumps(read_config(source) | {"num_layers": BLOCKS - 1}))
    elif change == "none":
        (source / "diffusion_pytorch_model.safetensors").unlink()
    else:
        next(source.glob("*-00002-*.safetensors")).unlink()
    blocks = read_config(source)["num_layers"]
    cut = plan_cut(read_config(source), random_mask(blocks=blocks), qk_norm="none")
    with pytest.raises(InputError):
        prune_folder(source, tmp_path / "out", cut)
    assert not list((tmp_path / "out").iterdir())


def test_cancelling_stops_at_the_next_block(tmp_path):
    teacher("t2v").save_pretrained(tmp_path / "source")
    (tmp_path / "out").mkdir()
    seen = []

    def stop(done, total, message):
        seen.append(done)
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        cut = plan_cut(read_config(tmp_path / "source"), random_mask(), qk_norm="none")
        prune_folder(tmp_path / "source", tmp_path / "out", cut, progress=stop)
    assert seen == [0, 1]


def test_the_card_says_what_was_done():
    about = {
        "model": {"model_id": "Wan-AI/Wan2.1-T2V-14B-Diffusers", "revision": "abc", "config_hash": "d" * 64},
        "pipeline_class": "WanPipeline",
        "mask": {"file": "m.safetensors", "hash": "e" * 64, "settings": {"ratio": 0.3, "seed": None},
                 "counts": {"self_heads": [28, 28], "cross_heads": [28, 27], "neurons": [9600, 9600]},
                 "shapes": {"self_heads": [2, 40], "cross_heads": [2, 40], "neurons": [2, 13824]}},
        "qk_norm": "fold", "compensate": True, "run": {"name": "run"}, "parameters": 7, "dense_parameters": 10,
        "flops": {"student": 7e12, "dense": 1e13, "clip": {"height": 480, "width": 832, "frames": 81}},
        "errors": [dict.fromkeys(("masking", "masking_update", "dense", "dense_update"), value) for value in (0.25, 0.5)],
        "command": "pare prune X", "use": "import diffusers", "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    card = model_card(about)
    for fact in (
        "base_model: Wan-AI/Wan2.1-T2V-14B-Diffusers", "pipeline_tag: text-to-video", "28 of 40", "27 to 28 of 40",
        "ratio 0.3 |", "7 of 10", "7e+12 of 1e+13 at 480 x 832", "| 1 | 5.00e-01 |", "| median | 3.75e-01 |",
        "pare prune X", "torch 2.13.0",
    ):  # fmt: skip
        assert fact in card, fact
    assert "Not measured." in model_card(about | {"errors": [], "flops": None})
