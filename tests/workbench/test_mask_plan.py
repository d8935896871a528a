"""The plan of a mask and the mask itself: from a run, from weights on disk, from shapes alone."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from analysis.importance import protected, run_importance, run_roles
from analysis.run_writer import RunWriter
from analysis.runs import Run
from analysis.score_table import write_scores
from analysis.scorers import magnitude
from analysis.scores import Scores
from pare import mask as masks
from pare import reference
from pare.errors import InputError
from pare.geometry import PRESETS, Clip
from pare.width.heads import select_heads
from pare.width.neurons import diverse, highest, neuron_importance
from pare.width.stored_neurons import select_neurons
from tests import tiny
from tests.runs_fixture import make_manifest, make_run, random_sample
from workbench.cli import main
from workbench.commands import mask as mask_command
from workbench.commands.mask import alpha, diff, mask, show
from workbench.mask_plan import plan
from workbench.mask_settings import PRESETS as MASK_PRESETS
from workbench.mask_settings import MaskSettings

WAN = PRESETS["wan2.1-t2v-14b"].geometry


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model on disk whose transformer lies in several shards."""
    pipe = tiny.tiny_pipeline(ffn_dim=96)
    folder = tiny.save(pipe, tmp_path_factory.mktemp("models") / "tiny")
    for path in (folder / "transformer").glob("*.safetensors"):
        path.unlink()
    pipe.transformer.save_pretrained(folder / "transformer", max_shard_size="60KB")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A run of random values that says it measured that model."""
    return run_of(model, tmp_path_factory.mktemp("runs") / "run")


def run_of(model, folder, **identity):
    geometry = reference.model_geometry(str(model))
    manifest = make_manifest(geometry.blocks, geometry.heads, steps=2, samples=3)
    described = reference.model_identity(str(model)) | identity
    size = {"height": 32, "width": 32, "frames": 9, "fps": 8}
    manifest = manifest.model_copy(update={"model": described, "geometry": geometry.to_dict(), "clip": size})
    generator = np.random.default_rng(0)
    shape = (geometry.blocks, geometry.heads)
    weights = {f"{kind}/output_weight_norm": generator.lognormal(0, 0.2, shape) for kind in ("self", "cross")}
    writer = RunWriter(folder, manifest, weights)
    for index in writer.pending():
        writer.write_sample(index, random_sample(manifest, generator, generator.beta(0.8, 1.2, shape)))
    return writer.finish()


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("wide") / "run", blocks=4, heads=10, steps=3, samples=4)


# the plan


def test_the_paper_preset_needs_no_weights_and_no_run(capsys):
    assert main(["mask", "--model", "wan2.1-t2v-14b", "--preset", "paper", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    counts = {part: set(kept) for part, kept in found["counts"].items()}
    assert counts == {"self_heads": {28}, "cross_heads": {28}, "neurons": {9600}}
    assert all(len(kept) == 40 for kept in found["counts"].values())
    assert found["predicted"]["block_parameters"] == 9_808_256_000
    assert round(found["predicted"]["flop_ratio"], 3) == 0.699
    text = mask_command.render(found)
    assert "28 of 40" in text and "9600 of 13824" in text and "9,808,256,000" in text and "69.9%" in text


def test_the_defaults_are_the_papers():
    assert MaskSettings.of("paper").model_dump() | {"alpha": None} == MaskSettings().model_dump()
    assert MaskSettings().protection == MASK_PRESETS["paper"]["alpha"] == 1.5
    assert MaskSettings.of("paper", ratio=0.5).ratio == 0.5


def test_a_plan_has_the_picks_the_cost_and_the_flips(wide):
    settings = MaskSettings(tau_t=0.4, alpha=2.0)
    planned = plan(wide, settings)
    importance, roles = run_importance(wide), run_roles(wide, 0.7, 0.4)
    np.testing.assert_array_equal(planned.self_heads, select_heads(protected(importance["self"], roles, 2.0), 7))
    np.testing.assert_array_equal(planned.cross_heads, select_heads(importance["cross"], 7))
    unprotected = select_heads(importance["self"], 7)
    np.testing.assert_array_equal(planned.flips, planned.self_heads != unprotected)
    np.testing.assert_array_equal(planned.study.kept[0], unprotected)
    at = planned.study.alphas.tolist().index(2.0)
    np.testing.assert_array_equal(planned.study.kept[at], planned.self_heads)
    assert planned.flips.any() and planned.counts.neurons == 448
    assert planned.predicted["clip"] == {"height": 48, "width": 48, "frames": 17}


@pytest.mark.parametrize("allocation", ["global", "global-l2"])
def test_a_global_plan_counts_every_block(wide, allocation):
    planned = plan(wide, MaskSettings(allocation=allocation, min_heads=3))
    assert planned.self_heads.sum() == planned.cross_heads.sum() == 28
    assert list(planned.counts.self_heads) == planned.self_heads.sum(axis=1).tolist()
    assert min(planned.counts.self_heads + planned.counts.cross_heads) >= 3
    assert len(set(planned.counts.self_heads)) > 1
    assert planned.predicted["parameters"] == plan(wide, MaskSettings(min_heads=3)).predicted["parameters"]


def test_a_target_is_found_and_recorded(wide):
    dense = plan(wide, MaskSettings(ratio=0.0)).predicted
    assert dense["parameters"] == dense["dense_parameters"] and dense["flop_ratio"] == 1
    planned = plan(wide, MaskSettings(target_flops=0.6 * dense["flops"]))
    assert planned.predicted["flops"] <= 0.6 * dense["flops"] and 0.3 < planned.settings.ratio < 0.5
    again = plan(wide, MaskSettings(ratio=planned.settings.ratio))
    np.testing.assert_array_equal(again.self_heads, planned.self_heads)
    larger = plan(wide, MaskSettings(height=96, width=96, frames=33))
    assert larger.predicted["flops"] > 4 * planned.predicted["flops"]


def test_the_random_control_is_not_protected(wide):
    planned = plan(wide, MaskSettings(scorer="random", seed=3))
    assert planned.settings.alpha == 1.0 and not planned.flips.any()
    assert plan(wide, MaskSettings(scorer="random", alpha=1.5)).settings.alpha == 1.5


def test_temporal_attention_keeps_the_heads_that_look_furthest_over_frames(wide):
    planned = plan(wide, MaskSettings(scorer="temporal_attention"))
    ratio = wide.array("self/ratio", list(wide.finished)).astype(float).mean(axis=(0, 1, 2))
    np.testing.assert_array_equal(planned.self_heads, select_heads(1 - ratio, planned.counts.self_heads))
    np.testing.assert_array_equal(planned.cross_heads, plan(wide, MaskSettings()).cross_heads)
    assert planned.settings.alpha == 1.0 and planned.source["cross_scorer"] == "pare"


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"alpha": 0.5}, "--alpha"),
        ({"tau_s": 0.1}, "--tau-s"),
        ({"neurons": "some"}, "--neurons.*some"),
        ({"allocation": "fair"}, "--allocation"),
        ({"tau_ffn": 0.0}, "--tau-ffn"),
        ({"dtype": "int4"}, "--dtype"),
        ({"seed": -1}, "--seed"),
        ({"target_flops": 1e9, "target_gib": 1.0}, "--target-flops and --target-gib"),
        ({"target_gib": -1.0}, "--target-gib"),
        ({"cross_ratio": 2.0}, "--cross-ratio"),
        ({"height": 50}, "--height.*48"),
        ({"min_heads": 0}, "--min-heads"),
    ],
)
def test_settings_out_of_range_are_refused(wide, settings, words):
    with pytest.raises(InputError, match=words):
        plan(wide, MaskSettings(**settings))


def test_a_plan_without_a_run_needs_shapes():
    with pytest.raises(InputError, match="--model MODEL"):
        plan(None, MaskSettings())
    with pytest.raises(InputError, match="--width --frames: got no value"):
        plan(None, MaskSettings(height=480), geometry=WAN)
    bare = plan(None, MaskSettings(), geometry=WAN)
    assert "flops" not in bare.predicted and bare.self_heads is None
    assert plan(None, MaskSettings(), geometry=WAN, clip=Clip(480, 832, 81)).predicted["flops"] > 1e15


# the mask


def test_the_mask_is_the_plan_and_the_neurons_of_eq_6_and_7(run, model, tmp_path):
    made = mask(run.folder, out=tmp_path / "m", model=str(model), ratio=0.4)
    kept, planned = masks.load(tmp_path / "m"), plan(run, MaskSettings(ratio=0.4))
    np.testing.assert_array_equal(kept.self_heads, planned.self_heads)
    np.testing.assert_array_equal(kept.cross_heads, planned.cross_heads)
    state = {}
    for path in (model / "transformer").glob("*.safetensors"):
        state |= load_file(path)
    for block in range(2):
        names = (f"blocks.{block}.ffn.net.0.proj.weight", f"blocks.{block}.ffn.net.2.weight")
        expected = diverse(*(state[name] for name in names), 56)
        np.testing.assert_array_equal(kept.neurons[block], expected.keep)
    assert made["counts"]["neurons"] == [56, 56] == [planned.counts.neurons] * 2
    assert made["predicted"] == dict(planned.predicted) and made["model"] == run.manifest.model
    assert made["neuron_passes"] == {"tau": [0.9], "skipped": [[0], [0]]}
    assert made["settings"]["min_heads"] is None and made["settings"]["alpha"] == 1.5
    assert "56 of 96 kept" in mask_command.render(made)


def test_the_same_call_gives_the_same_bytes_and_names_no_place(run, model, tmp_path):
    table = write_scores(Scores("mine", {"self": np.arange(8.0).reshape(2, 4)}), tmp_path / "mine.csv")
    for name in ("a", "b"):
        mask(run.folder, out=tmp_path / name, model=str(model), scorer=str(table), neurons="random", seed=5)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "a").read_bytes()
    settings = show(tmp_path / "a")["settings"]
    assert settings["scorer"] == "mine.csv" and settings["cross_scorer"] == "pare" and settings["seed"] == 5
    mask(run.folder, out=tmp_path / "c", neurons="random", scorer=str(table), seed=6)
    found = diff(tmp_path / "a", tmp_path / "c")
    assert found["settings"] == {"seed": [5, 6]} and found["diff"]["neurons"]["only_a"] > 0
    assert "seed 5 and 6" in mask_command.render(found)


def test_magnitude_and_random_need_no_run(model, tmp_path):
    mask(model=str(model), out=tmp_path / "m", scorer="magnitude", neurons="magnitude")
    kept = masks.load(tmp_path / "m")
    pipe = tiny.tiny_pipeline(ffn_dim=96)
    scores = magnitude(pipe)
    np.testing.assert_array_equal(kept.self_heads, select_heads(scores.score("self"), 3))
    np.testing.assert_array_equal(kept.cross_heads, select_heads(scores.score("cross"), 3))
    for block, layer in zip(kept.neurons, pipe.transformer.blocks, strict=True):
        importance = neuron_importance(layer.ffn.net[0].proj.weight.detach(), layer.ffn.net[2].weight.detach())
        np.testing.assert_array_equal(block, highest(importance, 64).keep)
    assert "run" not in kept.metadata and kept.metadata["settings"]["alpha"] == 1.0
    masks.check(kept, reference.model_geometry(str(model)), reference.model_identity(str(model)))
    with pytest.raises(InputError, match=r"--alpha: got 1.5 without a run"):
        mask(model=str(model), out=tmp_path / "n", scorer="magnitude", alpha=1.5)


def test_activation_weighs_neurons_by_what_they_add(model):
    geometry = reference.model_geometry(str(model))
    square = np.random.default_rng(0).random((2, 96))
    found = select_neurons("activation", geometry, 40, weights=model / "transformer", mean_square=square)
    for block, layer in enumerate(tiny.tiny_pipeline(ffn_dim=96).transformer.blocks):
        size = np.sqrt(square[block]) * layer.ffn.net[2].weight.detach().double().norm(dim=0).numpy()
        assert set(np.flatnonzero(found.keep[block])) == set(np.argsort(-size)[:40])
    assert found.taus == ()
    with pytest.raises(InputError, match="activation without moments"):
        select_neurons("activation", geometry, 40, weights=model / "transformer")


def test_neurons_are_read_block_by_block_and_reported(model):
    reports = []
    select_neurons(
        "pare",
        reference.model_geometry(str(model)),
        40,
        weights=model / "transformer",
        device="cpu",
        progress=lambda done, total, message="": reports.append((done, total)),
    )
    assert reports == [(1, 2), (2, 2)]


def test_twins_are_passed_over_and_counted(tmp_path):
    pipe = tiny.tiny_pipeline(ffn_dim=96)
    with torch.no_grad():
        up, down = pipe.transformer.blocks[1].ffn.net[0].proj.weight, pipe.transformer.blocks[1].ffn.net[2].weight
        up[48:], down[:, 48:] = up[:48], down[:, :48]
    folder = tiny.save(pipe, tmp_path / "twins")
    made = mask(run_of(folder, tmp_path / "run").folder, out=tmp_path / "m", model=str(folder), neuron_ratio=0.4)
    assert made["neuron_passes"] == {"tau": [0.9, 0.92, 0.94, 0.96, 0.98, 1.0], "skipped": [[0], [48] * 5 + [0]]}
    assert "48 neurons passed over at 0.9" in mask_command.render(made)


def test_without_weights_one_clear_error(run, wide, model, tmp_path):
    for opened, name in ((run, "tiny"), (wide, "random")):
        with pytest.raises(InputError, match=rf"--model.*{name}.*--model MODEL, or --neurons none"):
            mask(opened.folder, out=tmp_path / "m")
    with pytest.raises(InputError, match="preset"):
        mask(model="wan2.1-t2v-14b", out=tmp_path / "m", scorer="random")
    with pytest.raises(InputError, match="activation without moments"):
        mask(run.folder, out=tmp_path / "m", model=str(model), neurons="activation")
    assert not (tmp_path / "m").exists()


def test_the_runs_own_model_is_found_by_its_name(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(model.parent)
    mask(run.folder, out=tmp_path / "m")
    assert masks.load(tmp_path / "m").counts()["neurons"] == [64, 64]


def test_the_weights_must_be_those_that_the_run_measured(run, model, tmp_path):
    other = tiny.save(tiny.tiny_pipeline(seed=1, ffn_dim=96), tmp_path / "other")
    with pytest.raises(InputError, match=r"--model.*other.*weights.*tiny"):
        mask(run.folder, out=tmp_path / "m", model=str(other))
    with pytest.raises(InputError, match=r"--model.*demo.*configuration"):
        mask(run.folder, out=tmp_path / "m", model="demo")
    with pytest.raises(InputError, match=r"wan2.1-t2v-14b.*shapes"):
        mask(run.folder, out=tmp_path / "m", model="wan2.1-t2v-14b", neurons="none")
    # A hub's commit says nothing of files: the configuration decides.
    fetched = run_of(model, tmp_path / "fetched", revision="abc", weight_hash="def", model_id="someone/tiny")
    mask(fetched.folder, out=tmp_path / "m", model=str(model))
    assert masks.load(tmp_path / "m").model_id == "someone/tiny"


def test_a_damaged_transformer_is_refused(run, model, tmp_path):
    broken = tmp_path / "tiny"
    shutil.copytree(model, broken)
    sorted((broken / "transformer").glob("*.safetensors"))[1].unlink()
    with pytest.raises(InputError, match="without diffusion_pytorch_model-00002"):
        reference.weights_folder(str(broken))


def test_a_mask_is_written_only_where_it_is_asked_for(run, tmp_path):
    with pytest.raises(InputError, match="--out"):
        mask(run.folder, neurons="none")
    found = mask(run.folder, dry_run=True, out=tmp_path / "m")
    assert found["plan"] and list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"--preset.*paper"):
        mask(run.folder, out=tmp_path / "m", preset="mine")
    with pytest.raises(InputError, match=r"--k-min.*unknown flag"):
        mask(run.folder, out=tmp_path / "m", k_min=3)
    with pytest.raises(InputError, match=r"--ratio.*valid number"):
        mask(run.folder, out=tmp_path / "m", ratio="much")


def test_the_alpha_study_on_the_command_line(wide, capsys):
    found = alpha(wide.folder, tau_t=0.4)
    planned = plan(wide, MaskSettings(tau_t=0.4))
    assert found["study"] == planned.study.to_json() and found["settings"]["alpha"] is None
    assert main(["mask", "alpha", str(wide.folder), "--tau-t", "0.4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == found["study"]
    text = mask_command.render(found)
    flips = [flip for block in found["study"]["blocks"] for flip in block["flips"]]
    assert flips and f"+{next(each for each in flips if each['to'] == 'kept')['head']}T at" in text


def test_a_run_without_ratios_is_ranked_but_not_protected(wide, tmp_path):
    manifest = wide.manifest.model_copy(
        update={"statistics": {name: each for name, each in wide.manifest.statistics.items() if name != "self/ratio"}}
    )
    bare = dataclasses.replace(wide, manifest=manifest)
    assert isinstance(bare, Run)
    with pytest.raises(InputError, match=r"--alpha.*self/ratio"):
        plan(bare, MaskSettings())
    planned = plan(bare, MaskSettings(alpha=1.0))
    np.testing.assert_array_equal(planned.self_heads, select_heads(run_importance(wide)["self"], 7))
    assert planned.study is None and planned.flips is None
