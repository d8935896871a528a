"""`pare distill` as a person calls it: data, the three stages, baselines, resuming, plans at 14B, and what is refused."""

import json
import os

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

import pare.transformer
from analysis.run_writer import RunWriter
from pare.cost import flops
from pare.depth.budget import BudgetSchedule
from pare.errors import Cancelled, InputError
from pare.geometry import Clip
from pare.mask import Mask, save
from pare.models import load_pipeline
from pare.reference import model_geometry, model_identity
from pare.student import cost_arguments
from pare.training.data import LatentData
from pare.training.loop import read_log
from pare.transformer import PareWanTransformer3DModel
from pare.video import read_video, write_video
from tests.children import die, in_children
from tests.runs_fixture import make_manifest, random_sample
from tests.tiny import BLOCKS, FFN, HEADS, tiny_pipeline
from tests.tiny import save as save_pipeline
from workbench.cli import main
from workbench.commands.distill import distill
from workbench.commands.prune import prune
from workbench.distill_data import Encoder

QUICK = {"train_steps": 2, "log_every": 1, "warmup": 1, "checkpoint_every": 1, "device": "cpu", "learning_rate": 1e-3}


def words(**given):
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def say(capsys, *line):
    assert main([*map(str, line), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    draw = np.random.default_rng(0)
    for number in range(3):
        frames = draw.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
        write_video(frames, folder / f"{number}.mp4", 8, {})
        (folder / f"{number}.txt").write_text(f"a red {number}")
    return folder


@pytest.fixture(scope="module")
def pruned(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    keep = np.ones((BLOCKS, HEADS), bool)
    keep[:, 1] = False
    neurons = np.ones((BLOCKS, FFN), bool)
    neurons[:, ::4] = False
    save(Mask(keep, keep, neurons), folder / "mask.safetensors")
    prune(str(tiny_folder), mask=folder / "mask.safetensors", out=folder / "student", qk_norm="none", measure=False)
    return folder / "student"


@pytest.fixture(scope="module")
def data(tiny_folder, videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("samples") / "data"
    distill("data", str(tiny_folder), out=out, videos=videos, device="cpu")
    return out


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory):
    """A run of the tiny model, with random values."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    manifest = make_manifest(BLOCKS, HEADS, steps=2, samples=2)
    manifest = manifest.model_copy(update={"model": model_identity(str(tiny_folder))})
    draw = np.random.default_rng(0)
    weights = {f"{kind}/output_weight_norm": np.ones((BLOCKS, HEADS)) for kind in ("self", "cross")}
    writer = RunWriter(folder, manifest, weights)
    for index in writer.pending():
        writer.write_sample(index, random_sample(manifest, draw, np.full((BLOCKS, HEADS), 0.5)))
    writer.finish()
    return folder


def test_samples_are_what_the_pipeline_would_see(tiny_folder, tiny_image_folder, videos, data, tmp_path):
    from analysis.generation import clean_sample

    distill("data", str(tiny_image_folder), out=tmp_path / "data", videos=videos, device="cpu")
    for folder, samples in ((tiny_folder, LatentData(data)), (tiny_image_folder, LatentData(tmp_path / "data"))):
        pipe = load_pipeline(str(folder), device="cpu")
        settings = {"height": 32, "width": 32, "frames": 9, "fps": 8, "steps": 1, "guidance": 1.0}
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            wanted = clean_sample(pipe, "a red 1", settings, generator, lambda _: None, videos / "1.mp4")
        batch = samples.batch([1])
        assert torch.allclose(batch.clean, wanted.clean, atol=5e-3)
        inputs = batch.inputs(batch.clean, torch.tensor([0.5]))
        assert torch.equal(inputs["encoder_hidden_states"], wanted.embeddings["encoder_hidden_states"])
        assert torch.allclose(inputs["hidden_states"][:, batch.clean.shape[1] :], wanted.condition, atol=5e-3)
        if "encoder_hidden_states_image" in wanted.embeddings:
            image = wanted.embeddings["encoder_hidden_states_image"]
            assert torch.equal(inputs["encoder_hidden_states_image"], image)
    assert samples.captions == ["a red 0", "a red 1", "a red 2"]
    encoder = Encoder(pipe, settings)
    assert torch.equal(samples.empty, encoder.text(""))


def test_three_stages_from_the_command_line(tiny_folder, pruned, data, run, tmp_path, capsys):
    common = ["--data", data, *words(**QUICK)]
    width = say(capsys, "distill", "width", tiny_folder, "--student", pruned, "--out", tmp_path / "w", *common)
    joint = say(
        capsys, "distill", "joint", tiny_folder, "--student", tmp_path / "w", "--run", run, "--out", tmp_path / "j",
        *common, "--held-out", "1", "--validate-every", "1",
    )  # fmt: skip
    steps = say(
        capsys, "distill", "steps", tiny_folder, "--student", tmp_path / "j", "--out", tmp_path / "s", *common,
        *words(few_steps=2, trajectories=2, regression_steps=1, steps=4),
    )  # fmt: skip
    assert {"feature", "teacher", "data", "temporal"} <= set(width["last"])
    dense = sum(each.numel() for each in load_pipeline(str(tiny_folder), device="cpu").transformer.parameters())
    assert width["parameters"] < dense
    assert joint["last"]["blocks_run"] == 2.0
    records = list(read_log(tmp_path / "s" / "training"))
    assert ["regression" in record for record in records] == [True, False]
    validations = [record["validation"] for record in read_log(tmp_path / "j" / "training") if "validation" in record]
    assert len(validations) == 2 and validations[0]["n"] == 1
    # Every one of them is a pipeline of its own.
    assert steps["train_steps"] == 2
    for name, routed in (("w", False), ("j", True), ("s", True)):
        pipe = WanPipeline.from_pretrained(tmp_path / name)
        assert isinstance(pipe.transformer, PareWanTransformer3DModel)
        assert pipe.transformer.is_routing_enabled == routed
        assert [stage["stage"] for stage in pipe.transformer.config.pruning["training"]][-1][0] == name
    assert pipe.scheduler.config.solver_order == 1 and pipe.scheduler.config.disable_corrector == [0, 1]
    assert json.loads((tmp_path / "s" / "defaults.json").read_text())["guidance"] == 1.0
    card = (tmp_path / "s" / "README.md").read_text()
    assert card.count("### ") == 3 and "no recovery training" not in card and str(tmp_path) not in card
    video = say(
        capsys, "generate", tmp_path / "s", "--prompt", "a red 7", "--out", tmp_path / "v.mp4", "--device", "cpu"
    )
    assert video["settings"]["steps"] == 2
    assert (
        main(
            [
                "distill",
                "width",
                str(tiny_folder),
                "--student",
                str(pruned),
                "--out",
                str(tmp_path / "w"),
                *map(str, common),
            ]
        )
        == 2
    )
    assert "--resume" in capsys.readouterr().err


def test_a_killed_distillation_resumes_to_the_same_student(tiny_folder, pruned, data, tmp_path):
    def train(out, progress=lambda done, total, message="": None, resume=False):
        given = QUICK | {"train_steps": 3}
        distill(
            "joint", str(tiny_folder), student=pruned, data=data, out=out, resume=resume, progress=progress, **given
        )

    def kill(done, total, message=""):
        if (done, total) == (2, 3):
            die()

    train(tmp_path / "whole")
    assert in_children(lambda: train(tmp_path / "killed", kill)) == [-9]
    assert not (tmp_path / "killed" / "transformer").exists()
    with pytest.raises(InputError, match=r"settings\.learning_rate"):
        distill(
            "joint", str(tiny_folder), student=pruned, data=data, out=tmp_path / "killed", resume=True,
            **(QUICK | {"train_steps": 3, "learning_rate": 5e-3}),
        )  # fmt: skip
    train(tmp_path / "killed", resume=True)
    files = [sorted((tmp_path / name / "transformer").glob("*.safetensors")) for name in ("whole", "killed")]
    assert files[0] and [a.read_bytes() for a in files[0]] == [b.read_bytes() for b in files[1]]


def test_the_students_weights_are_the_trained_ones_in_the_precision_they_had(tiny_folder, pruned, data, tmp_path):
    half = PareWanTransformer3DModel.from_pretrained(pruned, subfolder="transformer", dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half" / "transformer")
    distill("width", str(tiny_folder), student=tmp_path / "half", data=data, out=tmp_path / "out", **QUICK)
    from pare.training.state import load_state
    from workbench.distill_train import stored_dtype

    assert stored_dtype(tmp_path / "out" / "transformer") == torch.bfloat16
    found = PareWanTransformer3DModel.from_pretrained(tmp_path / "out", subfolder="transformer", dtype=torch.float32)
    averages = load_state(tmp_path / "out" / "training" / "state")[0]
    for name, tensor in found.named_parameters():
        assert torch.allclose(tensor, averages[f"average.{name}"], rtol=1e-2, atol=1e-3), name


def test_a_routed_student_trains_every_block_behind_its_gate_and_keeps_its_router(videos, tmp_path):
    model = str(save_pipeline(tiny_pipeline(num_layers=3), tmp_path / "three"))
    data = tmp_path / "data"
    distill("data", model, out=data, videos=videos, device="cpu")
    distill("joint", model, data=data, out=tmp_path / "joint", k_min=2, k_max=2, **QUICK)
    ran = []

    def watch(student, step):
        # From now on, and so in the second step.
        for number, block in enumerate(student.blocks):
            block.register_forward_hook(lambda *_, number=number: ran.append(number))
        return {}

    given = QUICK | {"validate_every": 1}
    distill("width", model, student=tmp_path / "joint", data=data, out=tmp_path / "out", validate=watch, **given)
    assert set(ran) == {0, 1, 2}
    before, after = (
        PareWanTransformer3DModel.from_pretrained(tmp_path / name, subfolder="transformer").state_dict()
        for name in ("joint", "out")
    )
    routers = [name for name in before if name.startswith("router.")]
    assert routers and all(torch.equal(before[name], after[name]) for name in routers)
    assert not all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    "settings, check",
    [
        ({"router": "timestep"}, lambda model: model.router.content == "none"),
        ({"feature_weight": 0.0, "temporal_weight": 0.0}, lambda model: model.router.content == "latent"),
        ({"router": "static", "k_min": 2, "k_max": 2}, lambda model: not model.router.last.weight.any()),
    ],
    ids=["timestep", "fewer losses", "static"],
)
def test_baselines_are_settings(tiny_folder, data, run, tmp_path, settings, check):
    result = distill("joint", str(tiny_folder), data=data, run=run, out=tmp_path / "out", **(QUICK | settings))
    model = PareWanTransformer3DModel.from_pretrained(tmp_path / "out", subfolder="transformer")
    assert check(model)
    assert ("temporal" in result["last"]) == (settings.get("temporal_weight") != 0)
    budget = BudgetSchedule.from_dict(model.config.routing)
    assert budget.k_max == settings.get("k_max", BudgetSchedule.paper(BLOCKS).k_max)


@pytest.mark.parametrize("stage", ["width", "joint", "steps"])
@pytest.mark.parametrize("model", ["wan2.1-t2v-14b", "wan2.1-i2v-14b"])
def test_plans_at_14b_need_no_weights(stage, model, capsys):
    plan = say(
        capsys, "distill", stage, model, "--out", "x", "--dry-run", "--processes", 4, "--checkpointing",
        "--dtype", "bfloat16",
    )  # fmt: skip
    assert 9.9e9 < plan["student_parameters"] < 11.6e9 and plan["teacher_parameters"] > 14e9
    assert 40 < plan["memory"]["total"] / 2**30 < 127
    assert plan["train_steps"] == (1200 if stage == "steps" else 7000) and plan["samples_per_step"] == 4
    assert 1 < plan["hours_at_400_tflops"] < 100


@pytest.mark.parametrize(
    "given, message",
    [
        ({"stage": "depth"}, "one of data, width"),
        ({"student": None}, "--student"),
        ({"data": None}, "--data"),
        ({"student": "nowhere"}, "no student"),
        ({"data": "nowhere"}, r"data\.json"),
        ({"train_steps": 0}, "--train-steps"),
        ({"router": "clever"}, "--router"),
        ({"processes": 2}, "--processes"),
        ({"held_out": 3}, "--held-out"),
        ({"held_out": 1, "clips": 2, "validate_every": 1}, "--clips"),
        ({"roles": 1, "validate_every": 1}, "--held-out 1"),
        ({"velocities": 2}, "--feature-weight 0"),
        ({"stage": "joint", "router": "static"}, "static, without --run"),
        ({"stage": "joint", "k_max": 9}, "--k-max"),
    ],
)
def test_bad_input_is_refused_in_one_line(tiny_folder, pruned, data, tmp_path, given, message):
    call = {"stage": "width", "student": pruned, "data": data, "out": tmp_path / "out"} | QUICK | given
    with pytest.raises(InputError, match=message) as error:
        distill(call.pop("stage"), str(tiny_folder), **call)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_pruned_teacher_and_another_models_data_are_refused(tiny_image_folder, pruned, data, tmp_path):
    with pytest.raises(InputError, match="a pruned model"):
        distill("width", str(pruned), student=pruned, data=data, out=tmp_path / "out", **QUICK)
    with pytest.raises(InputError, match="samples encoded for"):
        distill("width", str(tiny_image_folder), student=pruned, data=data, out=tmp_path / "out", **QUICK)


def test_validations_make_clips_and_call_back(tiny_folder, pruned, data, tmp_path):
    seen = []

    def validate(student, step):
        seen.append((type(student).__name__, step))
        return {"own": step}

    for stage, name in (("width", "a"), ("steps", "b")):
        more = {"few_steps": 2, "trajectories": 1, "steps": 2}
        distill(
            stage, str(tiny_folder), student=pruned, data=data, out=tmp_path / name, validate=validate, clips=2,
            validate_every=2, held_out=2, **(QUICK | more),
        )  # fmt: skip
        found = [each["validation"] for each in read_log(tmp_path / name / "training") if "validation" in each][-1]
        assert found["clips"] == 2 and found["own"] == 2 and found["n"] == 2
        clips = sorted((tmp_path / name / "training" / "clips").iterdir())
        assert [clip.name for clip in clips] == ["000002-0.mp4", "000002-1.mp4", "teacher-0.mp4", "teacher-1.mp4"]
    frames, fps, about = read_video(clips[0])
    assert frames.shape == (9, 32, 32, 3) and fps == 8 and about["prompt"] == "a red 1"
    # The teacher's clip is what generating with the same prompt and seed gives, at its own steps and guidance.
    pipe = load_pipeline(str(tiny_folder), device="cpu")
    whole = {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 2, "guidance_scale": 2.0}
    wanted = pipe("a red 1", generator=torch.Generator("cpu").manual_seed(0), output_type="np", **whole).frames[0]
    teacher, _, about = read_video(clips[2])
    assert (about["prompt"], about["seed"]) == ("a red 1", 0)
    write_video(np.round(255 * np.clip(wanted, 0, 1)).astype(np.uint8), tmp_path / "wanted.mp4", 8, {})
    assert np.array_equal(teacher, read_video(tmp_path / "wanted.mp4")[0]) and not np.array_equal(teacher, frames)
    assert seen == [("PareWanTransformer3DModel", 2)] * 2


def test_a_training_without_features_does_without_the_teacher(tiny_folder, pruned, data, tmp_path):
    alone = {"velocities": 2, "feature_weight": 0.0, "no_text_share": 0.0}
    result = distill("width", str(tiny_folder), student=pruned, data=data, out=tmp_path / "out", **(QUICK | alone))
    assert {"teacher", "temporal", "data"} <= set(result["last"]) and "feature" not in result["last"]
    assert (tmp_path / "out" / "training" / "velocities" / "shards" / "00000.safetensors").is_file()


def test_the_oracle_reads_moving_digits_only():
    from workbench.demo.moving_digits import draw_clip
    from workbench.demo.settings import DATA
    from workbench.distill_validation import oracle_scores

    clip = draw_clip(DATA, 0, True)
    scores = oracle_scores(clip.video, clip.factors.caption)
    assert scores["digit"] == 1 and scores["colour"] == 1
    assert oracle_scores(clip.video, "a dog runs") == {}


def test_cancelling_leaves_a_training_to_resume(tiny_folder, pruned, data, tmp_path):
    def stop(done, total, message=""):
        if (done, total) == (1, 2):
            raise Cancelled

    with pytest.raises(Cancelled):
        distill("width", str(tiny_folder), student=pruned, data=data, out=tmp_path / "o", progress=stop, **QUICK)
    assert os.listdir(tmp_path / "o") == ["training"]
    result = distill("width", str(tiny_folder), student=pruned, data=data, out=tmp_path / "o", resume=True, **QUICK)
    assert result["last"]["step"] == 2 and (tmp_path / "o" / "model_index.json").is_file()
    assert pare.transformer.PareWanTransformer3DModel.from_pretrained(tmp_path / "o", subfolder="transformer")


def test_validations_measure_roles_of_student_and_teacher_as_a_capture_does(tiny_folder, pruned, data, tmp_path):
    from analysis.capture import CaptureSpec, capture
    from workbench.training_record import Training

    def stop(done, total, message=""):
        if "roles of the student, sample 2" in message and done == 2:
            raise Cancelled

    out = tmp_path / "out"
    given = QUICK | {"validate_every": 1, "roles": 2, "held_out": 2, "ema": 0.0}
    with pytest.raises(Cancelled):
        distill("joint", str(tiny_folder), student=pruned, data=data, out=out, progress=stop, **given)
    distill("joint", str(tiny_folder), student=pruned, data=data, out=out, resume=True, **given)
    training = Training.open(out / "training")
    assert training.role_steps == [1, 2] and training.validations["roles"].tolist() == [2, 2]
    student = PareWanTransformer3DModel.from_pretrained(out, subfolder="transformer").eval()
    teacher = load_pipeline(str(tiny_folder), device="cpu").transformer
    samples = LatentData(data)
    student.disable_routing()
    for model, measured in ((teacher, training.ratios(None)), (student, training.ratios(2))):
        assert measured.ratio.shape == (2, 3, BLOCKS, HEADS) and measured.sigmas == (0.2, 0.5, 0.8)
        batch, noise = samples.batch([2]), torch.Generator().manual_seed(1)
        states = 0.5 * batch.clean + 0.5 * torch.randn(batch.clean.shape, generator=noise)
        with torch.no_grad(), capture(model, CaptureSpec(("self/ratio",), moments=False)) as recorder:
            model(**batch.inputs(states, torch.tensor([0.5])))
        (found,) = recorder.take()
        assert np.allclose(found.arrays["self/ratio"][0], measured.ratio[1, 1, 0], atol=1e-5, equal_nan=True)
    assert np.isnan(training.ratios(2).ratio[..., 1]).all() and not np.isnan(training.ratios(None).ratio).any()
    assert training.ratios(2).ran.sum(axis=2).tolist() == [[2] * 3] * 2 and training.ratios(None).ran is None


def test_a_probe_times_a_step_and_leaves_nothing(tiny_folder, pruned, data, tmp_path, capsys):
    for stage in ("width", "steps"):
        line = ["distill", stage, tiny_folder, "--student", pruned, "--data", data, "--out", tmp_path / "o", "--probe"]
        found = say(capsys, *line, *words(**QUICK))
        # What is timed of stage III is its second half, without stored trajectories.
        plan = say(capsys, *line[:-1], "--dry-run", "--trajectories", "0", *words(**QUICK))
        assert found["probe"] and found["step_seconds"] > 0 and found["train_steps"] == 2
        assert found["flops_per_step"] == plan["flops_per_step"] and found["total_seconds"] > found["step_seconds"]
        assert plan["disk"]["total"] == sum(size for name, size in plan["disk"].items() if name != "total")
    assert not (tmp_path / "o").exists()
    assert main([*map(str, line), *words(**QUICK)]) == 0
    assert "nothing was trained" in capsys.readouterr().out


def test_validations_are_planned_as_so_many_forwards(tiny_folder, pruned, data):
    given = QUICK | {
        "train_steps": 10,
        "validate_every": 4,
        "held_out": 2,
        "clips": 1,
        "roles": 2,
        "steps": 3,
        "guidance": 2.0,
    }
    plan = distill("width", str(tiny_folder), student=pruned, data=data, out="x", dry_run=True, **given)
    none = distill("width", str(tiny_folder), student=pruned, data=data, out="x", dry_run=True, **QUICK)
    clip, geometry = Clip(32, 32, 9), model_geometry(str(tiny_folder))
    kept = cost_arguments(json.loads((pruned / "transformer" / "config.json").read_text()))
    student, teacher = flops(geometry, clip, **kept).total, flops(geometry, clip).total
    # At steps 4, 8 and 10: 3 steps of two branches, 2 samples at 3 levels, 2 of them for roles; the teacher's once.
    each = 6 * student + 3 * 2 * (student + teacher) + 3 * 2 * student
    assert plan["validation_flops"] == pytest.approx(3 * each + 6 * teacher + 3 * 2 * teacher)
    assert none["validation_flops"] == 0


def test_the_disk_of_a_plan_holds_what_a_training_writes(tiny_folder, pruned, data, tmp_path):
    given = QUICK | {"trajectories": 3, "few_steps": 2, "steps": 4, "regression_steps": 1}
    plan = distill("steps", str(tiny_folder), student=pruned, data=data, out="x", dry_run=True, **given)
    distill("steps", str(tiny_folder), student=pruned, data=data, out=tmp_path / "out", **given)

    def size(folder):
        return sum(path.stat().st_size for path in (tmp_path / "out" / folder).rglob("*.safetensors"))

    header = 20_000
    assert 0 < size("transformer") <= plan["disk"]["student"] + header
    # Twice, while one state replaces the other.
    assert plan["disk"]["state"] / 2 == pytest.approx(size("training/state"), abs=4 * header)
    assert plan["disk"]["trajectories"] == pytest.approx(size("training/trajectories"), abs=header / 4)
