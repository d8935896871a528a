"""Models by name: what is loaded, how, which model it is, and what is refused before anything is loaded."""

import doctest
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline

import pare.models
import pare.reference
import pare.versions
from pare.errors import InputError
from pare.geometry import PRESETS
from pare.models import check_device, device_of, load_pipeline, set_flow_shift
from pare.processes import THE_ONLY_ONE, Process
from pare.reference import check_pipeline, defaults, description_folder, model_geometry, model_identity, resolve
from tests.tiny import DEFAULTS, PROMPT, save, tiny_pipeline


@pytest.mark.parametrize("module", [pare.models, pare.reference, pare.versions])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def _latents(pipe) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe(
        PROMPT, height=32, width=32, num_frames=5, num_inference_steps=2, output_type="latent", generator=generator
    ).frames


def test_a_saved_pipeline_loads_and_computes_the_same(tiny_folder, capfd):
    pipe = load_pipeline(str(tiny_folder), device="cpu")
    assert isinstance(pipe, WanPipeline)
    assert pipe.transformer.dtype == pipe.vae.dtype == torch.float32
    assert torch.equal(_latents(pipe), _latents(tiny_pipeline()))
    assert capfd.readouterr() == ("", "")


def test_image_to_video_loads_its_own_class(tiny_image_folder):
    pipe = load_pipeline(str(tiny_image_folder), device="cpu", dtype="bfloat16")
    assert isinstance(pipe, WanImageToVideoPipeline)
    assert pipe.transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert pipe.text_encoder.dtype == torch.bfloat16
    assert pipe.vae.dtype == pipe.image_encoder.dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"dtype": "int8"}, "--dtype"),
        ({"device": "cuda:99"}, "--device"),
        ({"device": "gpu"}, "--device"),
        ({"device": "cpu", "offload": "model"}, "--offload"),
        ({"device": "cpu", "offload": "disk"}, "--offload"),
        ({"device": "cpu", "attention": "xformers"}, "--attention"),
        ({"device": "cpu", "attention": "sage"}, "--attention"),
    ],
)
def test_what_this_machine_lacks_is_refused(tiny_folder, settings, flag):
    with pytest.raises(InputError) as caught:
        load_pipeline(str(tiny_folder), **settings)
    assert caught.value.what == flag


def test_auto_device_is_the_first_one():
    assert str(check_device("auto")) == pare.models.available_devices()[0]


@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
def test_the_shift_moves_the_sigmas(scheduler):
    pipe = tiny_pipeline(scheduler=scheduler)
    middle = []
    for shift in (1.0, 5.0):
        set_flow_shift(pipe, shift)
        pipe.scheduler.set_timesteps(4)
        middle.append(float(pipe.scheduler.sigmas[2]))
    assert middle[1] == pytest.approx(5 * middle[0] / (1 + 4 * middle[0]), abs=0.01)


@pytest.fixture
def copy(tiny_folder, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def _edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "Wan2.1"),
        ({"boundary_ratio": 0.9}, "second transformer"),
        ({"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "second transformer"),
        ({"expand_timesteps": True}, "per-token"),
        ({"transformer": ["my_code", "Thing"]}, "my_code"),
    ],
)
def test_foreign_pipelines_are_refused(copy, values, message):
    _edit(copy / "model_index.json", **values)
    with pytest.raises(InputError, match=message):
        load_pipeline(str(copy), device="cpu")


def test_an_incomplete_folder_is_refused_in_one_line(copy):
    (copy / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError) as caught:
        load_pipeline(str(copy), device="cpu")
    assert "cannot be loaded" in str(caught.value) and "\n" not in str(caught.value)


def test_pickled_weights_are_not_read(copy):
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save({}, weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(InputError):
        load_pipeline(str(copy), device="cpu")


@pytest.mark.parametrize("model", ["nosuch", "./no/such", "", "wan2.1-t2v-2b", "a b/c"])
def test_unknown_names_are_refused(model):
    with pytest.raises(InputError, match="MODEL") as caught:
        resolve(model)
    assert "wan2.1-t2v-14b" in str(caught.value)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"model_index\.json"):
        resolve(str(tmp_path))


def test_a_preset_has_no_weights():
    assert resolve("wan2.1-t2v-14b").kind == "preset"
    for function in (load_pipeline, model_identity):
        with pytest.raises(InputError, match=r"Wan-AI/Wan2\.1-T2V-14B-Diffusers"):
            function("wan2.1-t2v-14b")


@pytest.mark.parametrize("mode", ["offline", "unreachable"])
def test_a_hub_id_without_a_network_fails_at_once_and_clearly(tmp_path, mode):
    environment = {"HF_HOME": str(tmp_path), "PATH": "", "HF_ENDPOINT": "http://127.0.0.1:9"}
    if mode == "offline":
        environment["HF_HUB_OFFLINE"] = "1"
    code = """
from pare.errors import InputError
from pare.reference import description_folder
try:
    description_folder("Wan-AI/Wan2.1-T2V-14B-Diffusers")
except InputError as error:
    print(error)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "Wan-AI/Wan2.1-T2V-14B-Diffusers" in done.stdout and "fix: connect once" in done.stdout


def test_a_hub_model_in_the_cache_needs_no_network(tmp_path, tiny_folder, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--owner--name"
    shutil.copytree(tiny_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    reference = resolve("owner/name")
    assert reference.kind == "hub"
    assert description_folder(reference, local_files_only=True).name == commit
    assert model_geometry("owner/name") == model_geometry(str(tiny_folder))
    identity = model_identity("owner/name")
    assert (identity["model_id"], identity["revision"]) == ("owner/name", commit)
    assert defaults("owner/name") == DEFAULTS


def test_identity_follows_the_weights_and_the_configuration_only(tiny_folder, copy, tmp_path):
    first = model_identity(str(tiny_folder))
    assert first["model_id"] == "text-to-video" and first["revision"] is None
    _edit(copy / "transformer" / "config.json", _diffusers_version="9.9")
    same = model_identity(str(copy))
    assert (same["config_hash"], same["weight_hash"]) == (first["config_hash"], first["weight_hash"])
    other = model_identity(str(save(tiny_pipeline(seed=1), tmp_path / "other")))
    assert other["config_hash"] == first["config_hash"] and other["weight_hash"] != first["weight_hash"]
    _edit(copy / "transformer" / "config.json", eps=1e-5)
    assert model_identity(str(copy))["config_hash"] != first["config_hash"]
    (copy / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 16)
    with pytest.raises(InputError, match="damaged header"):
        model_identity(str(copy))


def test_defaults_come_from_the_folder_then_from_the_preset_of_the_same_geometry(copy):
    assert defaults(str(copy)) == DEFAULTS
    (copy / "defaults.json").unlink()
    assert defaults(str(copy)) == {}
    wan = PRESETS["wan2.1-t2v-1.3b"].geometry
    config = {
        "num_layers": wan.blocks, "num_attention_heads": wan.heads, "attention_head_dim": 128, "ffn_dim": wan.ffn,
        "in_channels": 16, "out_channels": 16, "text_dim": 4096,
    }  # fmt: skip
    (copy / "transformer" / "config.json").write_text(json.dumps(config))
    (copy / "vae" / "config.json").write_text('{"z_dim": 16}')
    assert defaults(str(copy)) == dict(PRESETS["wan2.1-t2v-1.3b"].defaults)
    assert defaults(str(copy), height=720, width=1280)["shift"] == 5.0


def test_only_wan_pipelines_pass():
    assert check_pipeline({"_class_name": "WanPipeline", "transformer_2": [None, None]}) == "WanPipeline"


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr("pare.models.available_devices", lambda: ["cuda:0", "cuda:1", "cpu"])
    second = Process(rank=1, count=2, local_rank=1)
    assert [str(device_of(name, second)) for name in ("auto", "cuda", "cuda:0", "cpu")] == [
        "cuda:1", "cuda:1", "cuda:0", "cpu",
    ]  # fmt: skip
    assert str(device_of("auto", THE_ONLY_ONE)) == "cuda:0"
    with pytest.raises(InputError, match="cuda:2"):
        device_of("auto", Process(rank=2, count=3, local_rank=2))
