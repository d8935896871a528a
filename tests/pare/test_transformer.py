"""The pruned transformer on disk: save, load, precision, shards, pipelines, and processes that know only diffusers."""

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel

import pare.transformer
from pare.errors import InputError
from pare.transformer import PareWanTransformer3DModel
from tests.students import KINDS, inputs, student, teacher, velocity
from tests.tiny import FFN, HEADS, save, tiny_image_pipeline, tiny_pipeline

CASES = [("t2v", "dense"), ("t2v", "fold"), ("i2v", "dense"), ("i2v", "exact"), ("flf2v", "exact")]


def test_examples():
    assert doctest.testmod(pare.transformer).failed == 0


def alike(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stock_checkpoint_loads_unchanged(kind, tmp_path):
    model, given = teacher(kind), inputs(kind, batch=2)
    model.save_pretrained(tmp_path)
    ours = PareWanTransformer3DModel.from_pretrained(tmp_path)
    assert alike(ours, model) and torch.equal(velocity(ours, given), velocity(model, given))
    ours.save_pretrained(tmp_path / "ours")
    # A dense one is the stock model to whoever knows only that.
    stock = WanTransformer3DModel.from_pretrained(tmp_path / "ours")
    assert torch.equal(velocity(stock, given), velocity(model, given))


def test_a_timestep_per_token_is_the_stock_models_too():
    model, given = teacher("t2v"), inputs("t2v")
    given["timestep"] = torch.linspace(0, 1000, 12)[None]
    assert torch.equal(velocity(student("t2v", "dense"), given), velocity(model, given))


@pytest.mark.parametrize(("kind", "how"), CASES)
@pytest.mark.parametrize("way", [{}, {"variant": "fp16"}, {"max_shard_size": "20KB"}, {"safe_serialization": True}])
def test_save_and_load(kind, how, way, tmp_path):
    model, given = student(kind, how), inputs(kind)
    model.save_pretrained(tmp_path, **way)
    variant = {name: value for name, value in way.items() if name == "variant"}
    again = PareWanTransformer3DModel.from_pretrained(tmp_path, **variant)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == ("max_shard_size" in way)
    assert alike(again, model) and torch.equal(velocity(again, given), velocity(model, given))
    for name in ("self_heads", "kept_self_heads", "kept_cross_heads", "kept_neurons", "qk_norm_mode"):
        assert again.config[name] == model.config[name]
    assert not again.training


@pytest.mark.parametrize("how", ["dense", "fold", "exact"])
def test_precision_and_what_stays_in_float32(how, tmp_path):
    student("t2v", how).save_pretrained(tmp_path)
    model = PareWanTransformer3DModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    kept = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")
    for name, parameter in model.named_parameters():
        wide = any(part in name.split(".") for part in kept)
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
    assert torch.isfinite(velocity(model, inputs("t2v", dtype=torch.bfloat16))).all()


@pytest.mark.parametrize("how", ["fold", "exact"])
def test_loading_places_the_tables_on_the_device_too(how, tmp_path):
    student("t2v", how).save_pretrained(tmp_path)
    model = PareWanTransformer3DModel.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert not any(buffer.is_meta for buffer in model.buffers())


def test_blocks_have_their_own_widths():
    model = student("i2v", "exact")
    assert [block.attn1.heads for block in model.blocks] == model.config.self_heads == [2, 3, 1]
    assert [block.attn2.add_v_proj.out_features // 12 for block in model.blocks] == model.config.cross_heads
    assert [block.attn2.add_k_proj.out_features // 12 for block in model.blocks] == [HEADS] * 3
    assert [block.ffn.net[2].in_features for block in model.blocks] == model.config.neurons == [16, 8, 24]
    assert model.config.num_attention_heads == HEADS and model.config.ffn_dim == FFN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qk_norm_mode": "half"}, "qk_norm_mode"),
        ({"self_heads": [2, 3]}, "self_heads"),
        ({"kept_self_heads": None}, "kept_self_heads"),
        ({"kept_cross_heads": [[0], [1], [2]]}, "kept_cross_heads"),
        ({"kept_cross_heads": [[0], [1], [2]], "qk_norm_mode": "none"}, "kept_cross_heads"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(change, message):
    config = {name: value for name, value in student("t2v", "exact").config.items() if name[0] != "_"}
    with pytest.raises(InputError, match=message):
        PareWanTransformer3DModel(**(config | change))


def pipeline(kind: str, how: str):
    pipe = tiny_pipeline(num_layers=3) if kind == "t2v" else tiny_image_pipeline(num_layers=3)
    pipe.transformer = student(kind, how)
    # What diffusers writes into model_index.json goes by what was registered.
    pipe.register_modules(transformer=pipe.transformer)
    return pipe


LOADING = """
import sys
import diffusers
import pare.transformer
import torch
for kind, name in (("t2v", "WanPipeline"), ("i2v", "WanImageToVideoPipeline")):
    pipe = getattr(diffusers, name).from_pretrained(kind)
    with torch.no_grad():
        given = torch.load(f"{kind}.pt", weights_only=True)
        torch.save(pipe.transformer(**given, return_dict=False)[0], f"{kind}-out.pt")
    print(type(pipe.transformer).__name__, pipe.transformer.config.self_heads)
assert not [name for name in sys.modules if name.split(".")[0] in ("analysis", "workbench")]
"""


def test_whole_pipelines_reload_in_a_process_that_knows_only_diffusers_and_pare(tmp_path):
    pipes = {"t2v": pipeline("t2v", "fold"), "i2v": pipeline("i2v", "exact")}
    for kind, pipe in pipes.items():
        save(pipe, tmp_path / kind)
        index = json.loads((tmp_path / kind / "model_index.json").read_text())
        assert index["transformer"] == ["pare.transformer", "PareWanTransformer3DModel"]
        torch.save(inputs(kind), tmp_path / f"{kind}.pt")
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, cwd=tmp_path, timeout=500,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["PareWanTransformer3DModel [2, 3, 1]"] * 2
    for kind, pipe in pipes.items():
        found = torch.load(tmp_path / f"{kind}-out.pt", weights_only=True)
        assert torch.equal(found, velocity(pipe.transformer, inputs(kind)))


@pytest.mark.parametrize("kind", ["t2v", "i2v"])
def test_a_student_takes_the_place_of_the_bases_transformer(kind, tmp_path, tiny_folder, tiny_image_folder):
    base = tiny_folder if kind == "t2v" else tiny_image_folder
    model = student(kind, "fold")
    model.save_pretrained(tmp_path)
    loaded = PareWanTransformer3DModel.from_pretrained(tmp_path)
    pipeline_class = WanPipeline if kind == "t2v" else WanImageToVideoPipeline
    pipe = pipeline_class.from_pretrained(base, transformer=loaded)
    assert pipe.transformer is loaded and alike(loaded, model)
