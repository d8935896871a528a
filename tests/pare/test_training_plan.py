"""What a training needs: estimates against what autograd keeps, arithmetic at 14B, and the knob that a refusal names."""

import dataclasses

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file

import pare.training
from pare import cost
from pare.errors import InputError
from pare.geometry import PRESETS, Clip, Geometry, tokens
from pare.training.plan import GIB, Setup, check_fits, saved_by_block, step_flops, training_memory, trajectory_flops
from tests.students import student
from tests.tiny import tiny_transformer

T2V, I2V = (PRESETS[name].geometry for name in ("wan2.1-t2v-14b", "wan2.1-i2v-14b"))
CLIP, KEPT = Clip(480, 832, 81), {"self_heads": 28, "cross_heads": 28, "neurons": 9600}
PAPER = Setup("joint", processes=4, sharded=True, compute_bytes=2, checkpointing=True)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads, ffn, frames", [(4, 256, 4), (8, 128, 8)])
def test_what_a_block_keeps_for_the_backward_pass_is_counted(compute, heads, ffn, frames):
    model = tiny_transformer(num_layers=1, num_attention_heads=heads, attention_head_dim=16, ffn_dim=ffn)
    geometry = Geometry.from_config(model.config)
    # Wan pads texts to 512 tokens; here as many as make the text matter as little as there.
    geometry = dataclasses.replace(geometry, text_tokens=16)
    states = torch.randn(1, 4, frames, 16, 16)
    parameters = {each.untyped_storage().data_ptr() for each in model.parameters()}
    seen: dict[int, int] = {}
    kept = []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters and tensor.shape[-2:] != (heads * 16, heads * 16):
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    block = model.blocks[0]
    inputs = []
    handle = block.register_forward_pre_hook(lambda _module, args: inputs.append(args))
    with torch.autocast("cpu", compute, enabled=compute != torch.float32):
        with torch.no_grad():
            model(states, torch.tensor([500.0]), torch.randn(1, 16, 16))
        handle.remove()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(*inputs[0])
    clip = Clip(16 * 8, 16 * 8, (frames - 1) * 4 + 1)
    assert tokens(geometry, clip) == frames * 64
    bytes_per_value = 4 if compute == torch.float32 else 2
    own = {"self_heads": heads, "cross_heads": heads, "neurons": ffn}
    estimate = saved_by_block(geometry, clip, bytes_per_value, **own)
    assert 0.85 * estimate <= sum(seen.values()) <= 1.15 * estimate


def test_the_papers_training_fits_its_machines():
    for geometry in (T2V, I2V):
        need = training_memory(geometry, CLIP, KEPT, PAPER)
        assert need.total < 141 * GIB * 0.9
        check_fits(need, 141 * GIB, PAPER, "an H200")


def test_memory_is_the_sum_of_its_arithmetic():
    own, dense = cost.parameters(T2V, **KEPT).total, cost.parameters(T2V).total
    alone = training_memory(T2V, CLIP, KEPT, Setup("width", compute_bytes=4))
    assert (alone.student, alone.gradients, alone.optimiser, alone.average) == (4 * own, 4 * own, 8 * own, 4 * own)
    assert alone.teacher == 4 * dense
    four = training_memory(T2V, CLIP, KEPT, dataclasses.replace(PAPER, stage="width"))
    assert four.gradients == own and four.optimiser == 2 * own
    assert training_memory(T2V, CLIP, KEPT, Setup("width", average=False)).average == 0
    clips = training_memory(T2V, CLIP, KEPT, dataclasses.replace(PAPER, stage="width", clips=10 * GIB))
    assert clips.total - four.total == clips.clips == 2 * dense + 10 * GIB


def test_activations_grow_with_batch_tokens_and_without_checkpointing():
    def activations(clip=CLIP, **changes):
        return training_memory(T2V, clip, KEPT, dataclasses.replace(PAPER, **changes)).activations

    assert activations(batch=2) == 2 * activations()
    assert activations(checkpointing=False) > 5 * activations()
    assert activations(clip=Clip(720, 1280, 81)) == pytest.approx(activations() * 75600 / 32760, rel=0.05)
    assert activations(stage="width") < activations()


def test_operations_are_those_of_the_passes():
    own, dense = cost.flops(T2V, CLIP, **KEPT).total, cost.flops(T2V, CLIP).total
    assert step_flops(T2V, CLIP, KEPT, Setup("width")) == 3 * own + dense
    assert step_flops(T2V, CLIP, KEPT, Setup("width", checkpointing=True, batch=2)) == 2 * (4 * own + dense)
    assert step_flops(T2V, CLIP, KEPT, Setup("steps", guided=True)) == 4 * own + 2 * dense
    # In a step of regression the student is alone.
    half = Setup("steps", guided=True, regression=0.5)
    assert step_flops(T2V, CLIP, KEPT, half) == (3 * own + 4 * own + 2 * dense) / 2
    assert trajectory_flops(T2V, CLIP, 50, guided=True) == 100 * dense


@pytest.mark.parametrize(
    "setup, available, knob",
    [
        (Setup("joint", compute_bytes=2, batch=4, processes=4, sharded=True), 141, "--checkpointing"),
        (Setup("joint", compute_bytes=2, checkpointing=True), 141, "fsdp.yaml"),
        (dataclasses.replace(PAPER, batch=8), 141, "--batch 4 with --accumulation 2"),
        (PAPER, 40, "more processes"),
        (dataclasses.replace(PAPER, clips=10 * GIB), 131, "--clips 0"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_knob(setup, available, knob):
    need = training_memory(T2V, CLIP, KEPT, setup)
    with pytest.raises(InputError) as error:
        check_fits(need, available * GIB, setup, "cuda:0")
    assert knob in str(error.value) and "\n" not in str(error.value)


def test_counts_of_every_block_are_taken():
    model = student("t2v", "none")
    geometry = Geometry.from_config(model.config)
    from pare.student import cost_arguments

    need = training_memory(geometry, Clip(32, 32, 9), cost_arguments(model.config), Setup("width"))
    assert need.student == 4 * sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("name", ["cpu", "gpu", "gpus", "fsdp"])
def test_accelerate_reads_the_configs(name):
    path = f"{pare.training.__path__[0]}/configs/{name}.yaml"
    config = load_config_from_file(path)
    assert config.num_processes == (1 if name in ("cpu", "gpu") else 4)
    with open(path) as file:
        sharding = yaml.safe_load(file).get("fsdp_config", {})
    assert sharding.get("fsdp_version", 2) == 2
