"""capture, roles and mask as a person calls them: from Python and from the command line, good input and bad."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis.importance import head_importance, protected
from analysis.roles import classify
from analysis.runs import Run
from pare import mask as masks
from pare.errors import Cancelled, InputError
from tests.runs_fixture import make_run
from workbench.cli import main
from workbench.commands import capture as capture_command
from workbench.commands import mask as mask_command
from workbench.commands.capture import capture
from workbench.commands.mask import check, diff, mask, show
from workbench.commands.roles import roles

PROMPTS = ["a red 7 moving up", "", "a blue 3 standing still"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captured") / "run"
    make_run(folder, blocks=4, heads=10, steps=5, samples=6, seed=3)
    return folder


@pytest.fixture
def prompts(tmp_path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


def test_capture_roles_and_mask_from_the_command_line(tiny_folder, tmp_path, prompts, capsys):
    out = tmp_path / "run"
    given = [
        "capture",
        str(tiny_folder),
        "--out",
        str(out),
        "--prompts",
        str(prompts),
        "--device",
        "cpu",
        "--seed",
        "5",
    ]
    assert main([*given, "--samples", "3", "--json"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["samples"] == 3 and result["steps"] == 10 and result["branches"] == ["cond"]
    assert result["model"]["model_id"] == tiny_folder.name and sum(result["roles"].values()) == 8
    assert result["attention"]["kernel"] == "flash_cpu"
    assert "sample 3 of 3" in said.err
    assert [each.seed for each in Run.open(out).manifest.samples] == [5, 6, 7]

    assert main(["roles", str(out), "--csv", str(tmp_path / "heads.csv"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert sum(table["counts"].values()) == 8 == len(pd.read_csv(tmp_path / "heads.csv"))

    assert main(["mask", str(out), "--out", str(tmp_path / "m.safetensors"), "--model", str(tiny_folder)]) == 0
    assert "3 of 4 kept" in capsys.readouterr().out
    assert main(["mask", "check", str(tmp_path / "m.safetensors"), str(tiny_folder)]) == 0
    assert main(["mask", "show", str(tmp_path / "m.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"]["hash"] == Run.open(out).hash


def test_trajectory_and_image_to_video_from_the_command_line(tiny_image_folder, tmp_path, prompts, capsys):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    out = tmp_path / "run"
    given = ["capture", str(tiny_image_folder), "--out", str(out), "--mode", "trajectory", "--prompts", str(prompts)]
    given += ["--image", str(tmp_path / "red.png"), "--steps", "2", "--device", "cpu"]
    assert main(given) == 0
    assert "cond and uncond" in capsys.readouterr().out
    opened = Run.open(out)
    assert sorted(opened.videos) == [0, 1] and len(opened.timesteps) == 2
    words = ["--model", str(tiny_image_folder), "--ratio", "0.5", "--scorer", "magnitude", "--alpha", "1"]
    words += ["--neurons", "activation"]
    assert main(["mask", str(out), "--out", str(tmp_path / "m.safetensors"), *words]) == 0
    assert main(["mask", "check", str(tmp_path / "m.safetensors"), str(tiny_image_folder)]) == 0
    kept = masks.load(tmp_path / "m.safetensors")
    assert kept.counts()["cross_heads"] == [2, 2]


def test_capture_takes_prompts_as_a_list_and_a_warm_pipeline(tiny_folder, tmp_path):
    from pare.models import load_pipeline

    loaded = []

    def load(*args, **kwargs):
        loaded.append(args)
        return load_pipeline(*args, **kwargs)

    result = capture(
        str(tiny_folder),
        out=tmp_path / "run",
        mode="trajectory",
        prompts=["a 7"],
        load=load,
        device="cpu",
        guidance=1.0,
    )
    assert len(loaded) == 1 and result["branches"] == ["cond"] and result["videos"] == 1


def test_dry_run_plans_and_writes_nothing(tiny_folder, tmp_path, prompts, capsys):
    result = capture(str(tiny_folder), out=tmp_path / "run", prompts=prompts, dry_run=True, device="cpu")
    # 3 steps with guidance make a clean latent, 10 forwards measure it, for each of the two prompts.
    assert result["clips"] == 2 and result["forwards"] == 2 * (3 * 2 + 10)
    assert not (tmp_path / "run").exists()
    written = capture(str(tiny_folder), out=tmp_path / "run", prompts=prompts, device="cpu")
    size = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors"))
    assert size <= result["disk_bytes"] * 1.5 and result["disk_bytes"] <= 1.5 * size
    assert written["samples"] == 2
    trajectory = capture(str(tiny_folder), out=tmp_path / "t", mode="trajectory", prompts=prompts, dry_run=True)
    assert trajectory["forwards"] == 2 * 3 * 2
    no_prompt = capture(str(tiny_folder), out=tmp_path / "new", samples=2, dry_run=True, device="cpu")
    assert no_prompt["forwards"] == result["forwards"]


def test_what_does_not_fit_is_refused_before_the_model_is_loaded(tiny_folder, tmp_path, prompts, monkeypatch):
    def loaded(*args, **options):
        raise AssertionError("the model was loaded")

    given = {"out": tmp_path / "run", "prompts": prompts, "device": "cpu"}
    with pytest.raises(InputError, match="--max-disk") as refusal:
        capture(str(tiny_folder), **given, max_disk=1e-6, load=loaded)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="memory"):
        monkeypatch.setattr("pare.models.memory_of", lambda device, free: 1000)
        capture(str(tiny_folder), **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("group", ["parts", "rows", "moments"])
def test_a_run_without_ratios_has_no_roles(group, tiny_folder, tmp_path, prompts):
    result = capture(str(tiny_folder), out=tmp_path / "run", prompts=prompts, samples=1, statistics=group, device="cpu")
    assert result["roles"] is None and result["samples"] == 1
    assert "heads:" not in capture_command.render(result)


def test_the_plan_is_told_before_the_start(tiny_folder, tmp_path, prompts):
    messages = []
    capture(
        str(tiny_folder),
        out=tmp_path / "run",
        prompts=prompts,
        samples=1,
        device="cpu",
        progress=lambda done, total, message="": messages.append(message),
    )
    assert messages[0].startswith("expecting about") and "of memory" in messages[0] and "of disk" in messages[0]


def test_statistics_are_chosen_by_name(tiny_folder, tmp_path, prompts, capsys):
    given = ["capture", str(tiny_folder), "--prompts", str(prompts), "--samples", "3", "--device", "cpu", "--json"]
    assert main([*given, "--out", str(tmp_path / "all"), "--maps-steps", "2"]) == 0
    everything = json.loads(capsys.readouterr().out)
    run = Run.open(tmp_path / "all")
    assert (
        run.manifest.statistics["self/frame_map"].steps == (0, 9) and "self/entropy_error" in everything["statistics"]
    )
    assert run.moment("self/output")["mean"].shape == (2, 4, 12)
    assert main([*given, "--out", str(tmp_path / "basic"), "--statistics", "basic"]) == 0
    basic = Run.open(tmp_path / "basic")
    assert len(basic.statistics) == 6 and not basic.manifest.moments and basic.manifest.query_rows is None
    assert not (tmp_path / "basic/moments.safetensors").exists()
    for name in basic.statistics:
        np.testing.assert_array_equal(basic.array(name), run.array(name))
    some = [*given, "--out", str(tmp_path / "some"), "--statistics", "self/ratio,rows:1,self/entropy_exact"]
    assert main(some) == 0
    some = Run.open(tmp_path / "some")
    assert some.measured("self/entropy") == (0,) and some.measured("self/entropy_exact") == (0, 1, 2)
    exact, sampled, error = (some.array(f"self/entropy{end}", [0]) for end in ("_exact", "", "_error"))
    assert (abs(exact - sampled) <= 6 * error + 1e-4).all() and (exact < some.uniform_entropy).all()
    capsys.readouterr()
    for words in (["--statistics", "self/rato"], ["--maps-steps", "0"]):
        assert main([*given, "--out", str(tmp_path / "bad"), *words]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not (tmp_path / "bad").exists()


def test_cancel_leaves_finished_samples_and_resume_goes_on(tiny_folder, tmp_path, prompts):
    def cancel(done, total, message=""):
        if done > 15:
            raise Cancelled

    with pytest.raises(Cancelled):
        capture(str(tiny_folder), out=tmp_path / "run", prompts=prompts, device="cpu", progress=cancel)
    assert Run.open(tmp_path / "run").finished == (0,)
    result = capture(str(tiny_folder), out=tmp_path / "run", prompts=prompts, device="cpu", resume=True)
    assert result["samples"] == 2


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model": "no-such-model"}, "MODEL"),
        ({"model": "wan2.1-t2v-14b"}, "preset"),
        ({"prompts": "nowhere.txt"}, "--prompts"),
        ({"prompts": None}, "--prompts"),
        ({"prompts": []}, "--prompts"),
        ({"videos": "nowhere"}, "--videos"),
        ({"mode": "both"}, "--mode"),
        ({"samples": -1}, "--samples"),
        ({"height": 33}, "33"),
        ({"frames": 8}, "8"),
        ({"image": "red.png"}, "--image"),
        ({"colour": "red"}, "--colour"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tiny_folder, tmp_path, change, words):
    given = {"model": str(tiny_folder), "out": tmp_path / "run", "prompts": ["a 7"], "device": "cpu"} | change

    def never(*args, **kwargs):
        raise AssertionError("the model was loaded")

    with pytest.raises(InputError, match=words) as caught:
        capture(given.pop("model"), load=never, **given)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_prompt_files_that_hold_nothing_or_no_text(tiny_folder, tmp_path):
    for content, words in ((b"\n \n", "empty"), (b"\xff\xfe\x00", "UTF-8")):
        (tmp_path / "p.txt").write_bytes(content)
        with pytest.raises(InputError, match=words):
            capture(str(tiny_folder), out=tmp_path / "run", prompts=tmp_path / "p.txt", device="cpu")


def test_capture_into_another_run_is_refused_before_the_model_is_loaded(tiny_folder, run):
    def never(*args, **kwargs):
        raise AssertionError("the model was loaded")

    with pytest.raises(InputError, match="--resume"):
        capture(str(tiny_folder), out=run, prompts=["a 7"], device="cpu", load=never)
    with pytest.raises(InputError, match="another model"):
        capture(str(tiny_folder), out=run, prompts=["a 7"], device="cpu", resume=True)


def test_roles_writes_the_same_table_as_csv_and_parquet(run, tmp_path):
    result = roles(run, tau_s=0.6, tau_t=0.2, csv=tmp_path / "heads.csv", parquet=tmp_path / "heads.parquet")
    ratio = Run.open(run).array("self/ratio").astype(float).mean((0, 1, 2))
    letters = classify(ratio, 0.6, 0.2)
    assert result["counts"] == {
        "spatial": int((letters == "S").sum()), "mixed": int((letters == "M").sum()), "temporal": int((letters == "T").sum()),
    }  # fmt: skip
    assert [head["role"] for head in result["heads"]] == letters.ravel().tolist()
    csv, parquet = pd.read_csv(tmp_path / "heads.csv"), pd.read_parquet(tmp_path / "heads.parquet")
    assert list(csv.columns) == list(parquet.columns) and len(csv) == len(parquet) == 40
    np.testing.assert_allclose(csv["ratio"], ratio.ravel(), rtol=1e-6)
    np.testing.assert_allclose(csv["importance"], parquet["importance"])
    temporal = parquet["role"] == "T"
    np.testing.assert_allclose(parquet["protected"] / parquet["importance"], np.where(temporal, 1.5, 1.0))


def test_mask_keeps_the_highest_protected_heads(run, tmp_path):
    opened = Run.open(run)
    result = mask(run, neurons="none", out=tmp_path / "m.safetensors", ratio=0.45, tau_s=0.6, tau_t=0.35, alpha=2.0)
    kept = masks.load(tmp_path / "m.safetensors")
    importance = head_importance(opened.array("self/value_norm"), opened.timesteps, opened.output_weight_norm("self"))
    letters = classify(opened.array("self/ratio").astype(float).mean((0, 1, 2)), 0.6, 0.35)
    for block, row in enumerate(protected(importance, letters, 2.0)):
        assert sorted(np.flatnonzero(kept.self_heads[block])) == sorted(np.argsort(-row)[:6])
    cross = head_importance(opened.array("cross/value_norm"), opened.timesteps, opened.output_weight_norm("cross"))
    for block, row in enumerate(cross):
        assert sorted(np.flatnonzero(kept.cross_heads[block])) == sorted(np.argsort(-row)[:6])
    assert kept.neurons.all() and kept.neurons.shape == (4, 640)
    assert kept.metadata["run"]["hash"] == opened.hash and kept.metadata["settings"]["ratio"] == 0.45
    guess = kept.metadata["predicted"]
    assert guess["parameters"] < guess["dense_parameters"] and guess["flops"] < guess["dense_flops"]
    assert result["counts"]["self_heads"] == [6] * 4


def test_alpha_changes_the_mask_by_temporal_heads_only(run, tmp_path):
    plain = mask(run, neurons="none", out=tmp_path / "a", alpha=1.0, tau_t=0.4)
    lifted = mask(run, neurons="none", out=tmp_path / "b", alpha=100.0, tau_t=0.4)
    letters = np.array([head["role"] for head in roles(run, tau_t=0.4)["heads"]]).reshape(4, 10)
    found = diff(tmp_path / "a", tmp_path / "b")["diff"]
    assert found["cross_heads"]["overlap"] == 1
    for block, head in found["self_heads"]["changed"]:
        entered = head in lifted["kept"]["self_heads"][block]
        assert entered == (letters[block, head] == "T")
    assert found["self_heads"]["changed"] and plain["kept"] != lifted["kept"]


def test_the_mask_is_the_same_bytes_and_names_no_place(run, tmp_path):
    mask(run, neurons="none", out=tmp_path / "a")
    mask(run, neurons="none", out=tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert str(run.parent).encode() not in (tmp_path / "a").read_bytes()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"ratio": 1.5}, "--ratio"),
        ({"ratio": -0.1}, "--ratio"),
        ({"tau_s": 0.2}, "--tau-s"),
        ({"alpha": 0.5}, "--alpha"),
        ({"min_heads": 11}, "--min-heads"),
        ({"scorer": "magic"}, "--scorer"),
        ({"branch": "uncond"}, "--branch"),
        ({"run": "nowhere"}, "RUN"),
    ],
)
def test_bad_masks_are_refused_and_not_written(run, tmp_path, change, words):
    given = {"run": run, "out": tmp_path / "m", "neurons": "none"} | change
    with pytest.raises(InputError, match=words):
        mask(given.pop("run"), **given)
    assert list(tmp_path.iterdir()) == []


def test_exit_code_2_and_one_line(run, tmp_path, capsys):
    for words in (
        ["roles", str(tmp_path)],
        ["roles", str(run), "--tau-s", "0.1"],
        ["mask", str(run), "--out", str(tmp_path / "m"), "--ratio", "1.5"],
        ["mask", "show", str(tmp_path / "none")],
        ["mask", "check", str(run / "summary.safetensors"), "wan2.1-t2v-14b"],
    ):
        assert main(words) == 2
        said = capsys.readouterr()
        assert said.out == "" and len(said.err.strip().splitlines()) == 1 and "fix:" in said.err
    assert list(tmp_path.iterdir()) == []


def test_check_against_a_preset_compares_shapes(run, tmp_path):
    mask(run, neurons="none", out=tmp_path / "m")
    with pytest.raises(InputError, match=r"random.*wan2\.1-t2v-1\.3b"):
        check(tmp_path / "m", "wan2.1-t2v-1.3b")


def test_show_and_render_say_what_is_kept(run, tmp_path):
    mask(run, neurons="none", out=tmp_path / "m")
    shown = show(tmp_path / "m")
    text = mask_command.render(shown)
    assert "7 of 10 kept in every block" in text and "mask of random" in text and shown["run"]["samples"] == 6
    other = mask(run, neurons="none", out=tmp_path / "n", ratio=0.5)
    assert (
        "overlap" in mask_command.render(diff(tmp_path / "m", tmp_path / "n"))
        and other["counts"]["neurons"] == [640] * 4
    )


def test_roles_and_mask_need_no_torch():
    code = "import sys, workbench.commands.roles, workbench.commands.mask; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
