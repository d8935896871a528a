"""Interventions: ablated heads against zeroed columns, and sweeps that survive a kill to the same table."""

import copy
import multiprocessing
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.interventions import ablate, by_head, every_head, sweep
from analysis.probes import Probe, data_loss, make_probes, noise_of, velocity
from pare.errors import Cancelled, InputError
from tests.analysis.test_capture import hooks_of, image_transformer, inputs
from tests.tiny import BLOCKS, DEFAULTS, HEAD_DIM, HEADS, tiny_image_pipeline, tiny_pipeline, tiny_transformer

PROMPT = "a red 7 moving up and left, fast"
TIMESTEPS = (900.0, 400.0)
SETS = {"one": [("self", 0, 1)], "two": [("self", 1, 0), ("cross", 1, 3)], "none": []}


def probe(seed=0, dtype=torch.float32, image=False):
    given = inputs(dtype, channels=4, frames=3, seed=seed, image=image)
    generator = torch.Generator().manual_seed(seed + 100)
    condition = torch.randn(1, 6 if image else 0, 3, 8, 8, generator=generator).to(dtype)
    embeddings = {name: value for name, value in given.items() if name.startswith("encoder_hidden_states")}
    return Probe(given["hidden_states"], condition, embeddings, seed)


def without(model, heads):
    """A copy of the model with the heads' columns of the output projections zeroed."""
    model = copy.deepcopy(model)
    for kind, block, head in heads:
        attention = model.blocks[block].attn1 if kind == "self" else model.blocks[block].attn2
        attention.to_out[0].weight.data[:, head * HEAD_DIM : (head + 1) * HEAD_DIM] = 0
    return model


@pytest.mark.parametrize("image", [False, True])
def test_sweep_against_zeroed_columns(image):
    model = (image_transformer() if image else tiny_transformer()).double()
    probes = [probe(seed, torch.float64, image) for seed in range(2)]
    before = hooks_of(model)
    table = sweep(model, SETS, probes, TIMESTEPS)
    assert hooks_of(model)[:1] == before[:1]
    assert len(table) == len(SETS) * 2 * len(TIMESTEPS)
    assert not table.duplicated(["head_set", "sample", "step"]).any()
    with torch.no_grad():
        for row in table.itertuples():
            whole = velocity(model, probes[row.sample], row.timestep)
            cut = velocity(without(model, SETS[row.head_set]), probes[row.sample], row.timestep)
            assert row.velocity == pytest.approx(whole.square().mean().item(), rel=1e-9)
            assert row.change == pytest.approx(((cut - whole).norm() / whole.norm()).item() ** 2, rel=1e-6, abs=1e-25)
            assert (row.heads, row.sigma) == (len(SETS[row.head_set]), row.timestep / 1000)
    assert (table.loc[table.head_set == "none", "change"] == 0).all()
    assert (table.loc[table.head_set != "none", "change"] > 0).all()


def test_every_head_alone_as_arrays():
    model = tiny_transformer()
    table = sweep(model, every_head(model), [probe(0), probe(1)], TIMESTEPS)
    arrays = by_head(table, model)
    assert {kind: values.shape for kind, values in arrays.items()} == dict.fromkeys(
        ("self", "cross"), (2, BLOCKS, HEADS)
    )
    rows = table[(table.head_set == "cross 1.2") & (table["sample"] == 1)]
    assert arrays["cross"][1, 1, 2] == pytest.approx(rows.change.mean()) and len(rows) == len(TIMESTEPS)


def test_probes_are_the_models_own_latents_and_the_loss_is_written_out():
    for pipe, extra in ((tiny_pipeline(), {}), (tiny_image_pipeline(), {"image": None})):
        settings = {**DEFAULTS, "seed": 5, "negative_prompt": None, **extra}
        if extra:
            settings["image"] = _picture()
        scheduler, seen = pipe.scheduler, []
        probes = make_probes(pipe, [PROMPT, "a blue 3"], settings, progress=_noting(seen))
        assert pipe.scheduler is scheduler and seen[-1][:2] == (6, 6) and len(seen) == 6
        again = make_probes(pipe, [PROMPT, "a blue 3"], settings)
        assert all(torch.equal(a.clean, b.clean) for a, b in zip(probes, again, strict=True))
        assert [each.seed for each in probes] == [5, 6] and not torch.equal(probes[0].clean, probes[1].clean)
        one, t = probes[1], 300.0
        noise = noise_of(one, t)
        assert not torch.equal(noise, noise_of(one, 300.5)) and abs(noise.std().item() - 1) < 0.1
        with torch.no_grad():
            hidden = torch.cat([0.7 * one.clean + 0.3 * noise, one.condition], 1)
            found = pipe.transformer(hidden, torch.tensor([t]), return_dict=False, **one.embeddings)[0]
            expected = (found - (noise - one.clean)).square().mean()
            torch.testing.assert_close(data_loss(pipe.transformer, one, t, batch=2), expected.expand(2))


def _noting(seen):
    return lambda *report: seen.append(report)


def _picture():
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))


@pytest.mark.parametrize("image", [False, True])
def test_ablate_around_a_pipeline_call_on_chosen_steps(image):
    pipe = tiny_image_pipeline() if image else tiny_pipeline()
    heads = [("self", 0, 1), ("cross", 1, 3)]
    cut = without(pipe.transformer, heads)
    seen = []

    def generate():
        picture = {"image": _picture()} if image else {}
        latents = []
        pipe(
            prompt=PROMPT, height=32, width=32, num_frames=9, num_inference_steps=3, guidance_scale=2.0,
            output_type="latent", generator=torch.Generator().manual_seed(0),
            callback_on_step_end=lambda pipe, step, t, values: latents.append(values["latents"]) or values, **picture,
        )  # fmt: skip
        seen.append(torch.stack(latents))
        return seen[-1]

    plain = generate()
    with ablate(pipe, heads):
        everywhere = generate()
    with ablate(pipe, heads, steps=[1]):
        at_one = generate()
    with ablate(pipe, heads, steps=[1], branch="uncond"):
        at_one_uncond = generate()
    with ablate(pipe, heads, steps=[7]):
        never = generate()
    with ablate(pipe, []):
        nothing = generate()
    whole, pipe.transformer = pipe.transformer, cut
    reference = generate()
    pipe.transformer = whole
    torch.testing.assert_close(everywhere, reference, rtol=1e-4, atol=1e-5)
    assert torch.equal(never, plain) and torch.equal(nothing, plain) and torch.equal(generate(), plain)
    assert torch.equal(at_one[0], plain[0]) and not torch.equal(everywhere[0], plain[0])
    assert not torch.equal(at_one[1], plain[1]) and not torch.equal(at_one[1], at_one_uncond[1])


def test_mean_mode_puts_the_mean_of_the_head_there():
    model, one = tiny_transformer().double(), probe(0, torch.float64)
    means = {"self": np.random.default_rng(0).normal(size=(BLOCKS, HEADS, HEAD_DIM))}
    reference = without(model, [("self", 1, 2)])
    layer = model.blocks[1].attn1.to_out[0]
    moved = layer.weight.data[:, 2 * HEAD_DIM : 3 * HEAD_DIM] @ torch.from_numpy(means["self"][1, 2])
    reference.blocks[1].attn1.to_out[0].bias.data += moved
    with torch.no_grad():
        with ablate(model, [("self", 1, 2)], mode="mean", means=means):
            found = velocity(model, one, 500.0)
        torch.testing.assert_close(found, velocity(reference, one, 500.0), rtol=1e-9, atol=1e-11)
    zero, mean = (
        sweep(model, {"a": [("self", 1, 2)]}, [one], TIMESTEPS, mode=mode, means=means) for mode in ("zero", "mean")
    )
    assert (zero.change != mean.change).all()


@pytest.mark.parametrize(
    ("heads", "how", "match"),
    [
        ([("self", BLOCKS, 0)], {}, "heads"),
        ([("cross", 0, -1)], {}, "heads"),
        ([("both", 0, 0)], {}, "self or cross"),
        ([("self", 0, 0)], {"mode": "mean"}, "means"),
        ([("self", 0, 0)], {"mode": "noise"}, "zero or mean"),
    ],
)
def test_bad_interventions_are_refused(heads, how, match):
    with pytest.raises(InputError, match=match), ablate(tiny_transformer(), heads, **how):
        pass


def test_a_cancelled_sweep_resumes_to_the_same_table_and_bytes(tmp_path):
    model, probes = tiny_transformer(), [probe(0), probe(1)]
    table = sweep(model, SETS, probes, TIMESTEPS, out=tmp_path / "whole.jsonl")
    for stop in (1, 4, 11):
        path = tmp_path / f"{stop}.jsonl"

        def progress(done, total, message="", stop=stop):
            assert total == len(table)
            if done == stop:
                raise Cancelled

        before = hooks_of(model)
        with pytest.raises(Cancelled):
            sweep(model, SETS, probes, TIMESTEPS, out=path, progress=progress)
        assert hooks_of(model)[:1] == before[:1]
        # What a kill in the middle of a write leaves.
        path.write_bytes(path.read_bytes() + b'{"head_set": "tw')
        pd.testing.assert_frame_equal(sweep(model, SETS, probes, TIMESTEPS, out=path, resume=True), table)
        assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    pd.testing.assert_frame_equal(sweep(model, SETS, probes, TIMESTEPS), table)


def _long_sweep(path):
    model = tiny_transformer()
    sweep(model, every_head(model), [probe(0)], tuple(np.linspace(1, 999, 400)), out=path)


def test_kill_9_and_resume(tmp_path):
    path = tmp_path / "killed.jsonl"
    process = multiprocessing.get_context("fork").Process(target=_long_sweep, args=(path,))
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not path.exists() or path.read_bytes().count(b"\n") < 20):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    there = path.read_bytes().count(b"\n") - 1
    assert there >= 19

    class Enough(Exception):
        pass

    seen = []

    def progress(done, total, message=""):
        seen.append(done)
        if len(seen) == 5:
            raise Enough

    model = tiny_transformer()
    timesteps = tuple(np.linspace(1, 999, 400))
    with pytest.raises(Enough):
        sweep(model, every_head(model), [probe(0)], timesteps, out=path, resume=True, progress=progress)
    assert seen == list(range(there + 1, there + 6))


def test_a_sweep_of_other_settings_or_another_model_is_not_continued(tmp_path):
    model, probes, path = tiny_transformer(), [probe(0)], tmp_path / "a.jsonl"
    sweep(model, SETS, probes, TIMESTEPS, out=path, identity={"model_id": "tiny"})
    content = path.read_bytes()
    same = {"out": path, "resume": True, "identity": {"model_id": "tiny"}}
    changed = [
        ((model, SETS, probes, (900.0,)), same),
        ((model, SETS, [probe(1)], TIMESTEPS), same),
        ((model, {"one": [("self", 0, 2)]}, probes, TIMESTEPS), same),
        ((tiny_transformer(seed=1), SETS, probes, TIMESTEPS), same),
        ((model, SETS, probes, TIMESTEPS), same | {"identity": {}}),
        ((model, SETS, probes, TIMESTEPS), same | {"resume": False}),
    ]
    for given, how in changed:
        with pytest.raises(InputError):
            sweep(*given, **how)
        assert path.read_bytes() == content
    path.write_text("not ours\n")
    with pytest.raises(InputError, match="pare-sweep/1"):
        sweep(model, SETS, probes, TIMESTEPS, **same)
    with pytest.raises(InputError, match="at least one"):
        sweep(model, {}, probes, TIMESTEPS)
