"""The demo model's build at a tiny size: it runs whole, resumes to the same weights, and its folder is plain diffusers."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from safetensors.torch import load_file

from pare.compact_text import CompactTextProcessor
from workbench.demo.build import build
from workbench.demo.flow import build_transformer, shifted_sigma
from workbench.demo.latents import caption_embeddings, every_caption
from workbench.demo.settings import (
    DataSettings,
    DemoSettings,
    FlowSettings,
    TextSettings,
    TransformerSettings,
    VaeSettings,
)
from workbench.demo.text import build_text_encoder, build_tokenizer

TINY = DemoSettings(
    data=DataSettings(),
    vae=VaeSettings(
        base_dim=8,
        steps=3,
        image_steps=2,
        image_batch=2,
        batch=1,
        warmup=1,
        whole_steps=2,
        whole_batch=1,
        statistics_clips=4,
    ),
    transformer=TransformerSettings(num_layers=2, ffn_dim=64, num_attention_heads=2, attention_head_dim=12),
    flow=FlowSettings(
        clips=8, held_out_clips=4, steps=6, batch=2, warmup=1, checkpoint_every=2, validate_every=6, compile=False
    ),
)


def weights(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    build(folder / "model", settings=TINY, cache=folder / "cache")
    return folder


def test_the_folder_is_a_plain_wan_pipeline(built):
    pipeline = WanPipeline.from_pretrained(built / "model")
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(
        "a red 7 moving up and left, fast", height=48, width=48, num_frames=17, num_inference_steps=2, output_type="np"
    ).frames
    assert video.shape == (1, 17, 48, 48, 3)
    assert not torch.isnan(torch.as_tensor(video)).any()
    assert (built / "model" / "defaults.json").exists()
    assert all(isinstance(p, WanAttnProcessor) for p in pipeline.transformer.attn_processors.values())


def test_no_file_of_the_model_names_a_place_of_the_machine_that_built_it(built):
    described = [path.read_text() for path in (built / "model").rglob("*.json")]
    assert described and not any(str(built) in text or str(Path.home()) + "/" in text for text in described)


def test_weights_are_small_but_where_diffusers_keeps_them_whole(built):
    stored = load_file(built / "model" / "transformer" / "diffusion_pytorch_model.safetensors")
    whole = {name for name, tensor in stored.items() if tensor.dtype == torch.float32}
    assert whole == {name for name in stored if {"time_embedder", "scale_shift_table", "norm2"} & set(name.split("."))}
    assert len(whole) < len(stored) / 2


def test_a_killed_build_ends_with_the_same_weights(built, tmp_path):
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import torch; torch.set_num_threads(1)\n"
        "from tests.workbench.test_demo_build import TINY; from workbench.demo.build import build\n"
        "base = Path(sys.argv[1]); build(base / 'model', settings=TINY, cache=base / 'cache')\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parents[2])]
    state = tmp_path / "cache" / "transformer" / "state" / "state.json"
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert state.exists()
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert weights(tmp_path / "model") == weights(built / "model")


def test_training_attention_equals_the_stock_processor():
    torch.manual_seed(0)
    transformer = build_transformer(TINY).eval()
    torch.nn.init.normal_(transformer.proj_out.weight)
    latents, timestep = torch.randn(2, 8, 3, 12, 12), torch.tensor([100.0, 900.0])
    text = torch.randn(2, 9, 64)
    text[1, 5:] = 0
    padded = torch.cat([text, torch.zeros(2, 512 - 9, 64)], 1)
    kept = padded[:, :16]
    with torch.no_grad():
        stock = transformer(latents, timestep, padded, return_dict=False)[0]
        transformer.set_attn_processor(CompactTextProcessor(512 - 16 + 1))
        compact = transformer(latents, timestep, kept, return_dict=False)[0]
    assert (stock - compact).abs().max() <= 1e-5 * stock.abs().max()


def test_training_text_is_what_the_pipeline_encodes(built):
    pipeline = WanPipeline.from_pretrained(built / "model")
    captions = ["", "a blue 3 standing still", "a red 7 moving up and left, fast"]
    ours = caption_embeddings(build_tokenizer(TextSettings()), build_text_encoder(TextSettings()), captions, 16)
    theirs, unconditional = pipeline.encode_prompt(captions, max_sequence_length=512, dtype=torch.float32)
    assert theirs.shape[1] == 512
    assert torch.allclose(ours, theirs[:, :16], atol=1e-5)
    assert torch.count_nonzero(theirs[:, 16:]) == 0
    assert torch.allclose(unconditional[0, :16], ours[0], atol=1e-5)


def test_every_caption_is_known_to_the_tokenizer_and_leaves_padding():
    tokenizer = build_tokenizer(TextSettings())
    captions = every_caption()
    assert len(captions) == len(set(captions)) == 1 + 10 * 6 * (1 + 8 * 2)
    ids = tokenizer(captions).input_ids
    assert max(map(len, ids)) < FlowSettings().kept_text_tokens
    assert not any(tokenizer.unk_token_id in sequence for sequence in ids)


def test_flow_shift_matches_the_scheduler():
    sigma = shifted_sigma(torch.tensor([0.25]), 3.0)
    assert sigma.item() == pytest.approx(3 * 0.25 / (1 + 2 * 0.25))
