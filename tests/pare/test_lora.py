"""A LoRA on a pruned model: cutting and merging commute, and one that was not cut is refused in one line."""

import doctest

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from peft import LoraConfig
from safetensors.torch import save_file

import pare.lora
import pare.width.lora
from pare.errors import InputError
from pare.geometry import Geometry
from pare.lora import check_lora
from pare.mask import Mask
from pare.transformer import PareWanTransformer3DModel
from pare.width.lora import slice_lora, to_diffusers
from pare.width.surgery import prune
from tests.tiny import BLOCKS, FFN, HEAD_DIM, HEADS, tiny_image_pipeline, tiny_pipeline, tiny_transformer

DIM, RANK = HEADS * HEAD_DIM, 3
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
IMAGE_TARGETS = [*TARGETS, "add_k_proj", "add_v_proj"]


@pytest.mark.parametrize("module", [pare.lora, pare.width.lora], ids=lambda module: module.__name__)
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


@pytest.fixture(scope="module")
def mask():
    """Other heads and neurons in every block, and other numbers of them."""
    rng = np.random.default_rng(0)
    kept = {"self_heads": (HEADS, [3, 2]), "cross_heads": (HEADS, [2, 3]), "neurons": (FFN, [24, 16])}
    rows = {part: np.zeros((BLOCKS, size), bool) for part, (size, _) in kept.items()}
    for part, (size, counts) in kept.items():
        for block, count in enumerate(counts):
            rows[part][block, rng.permutation(size)[:count]] = True
    return Mask(**rows)


def geometry_of(transformer):
    return Geometry.from_config(dict(transformer.config))


def dense_lora(transformer, targets, bias=False, seed=0):
    """Random LoRA tensors of a transformer, under diffusers' names."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and any(name.endswith(target) for target in targets):
            sizes = {"lora_A.weight": (RANK, module.in_features), "lora_B.weight": (module.out_features, RANK)}
            sizes |= {"lora_B.bias": (module.out_features,)} if bias else {}
            for ending, size in sizes.items():
                lora[f"transformer.{name}.{ending}"] = 0.1 * torch.randn(size, generator=generator)
    return lora


def merged(transformer, lora, scale=1.0):
    """The transformer's weights with the LoRA added by hand: W + s·B·A, bias + s·b."""
    weights = {name: value.clone() for name, value in transformer.state_dict().items()}
    for name in {name.rsplit(".lora_", 1)[0] for name in lora if ".lora_" in name}:
        layer = name.removeprefix("transformer.")
        weights[f"{layer}.weight"] += scale * lora[f"{name}.lora_B.weight"] @ lora[f"{name}.lora_A.weight"]
        if f"{name}.lora_B.bias" in lora:
            weights[f"{layer}.bias"] += scale * lora[f"{name}.lora_B.bias"]
    return weights


def with_weights(transformer, weights):
    transformer.load_state_dict(weights)
    return transformer


def models(kind):
    """Two equal dense transformers and the layers that a LoRA may change."""
    if kind == "image":
        return tiny_image_pipeline().transformer, tiny_image_pipeline().transformer, IMAGE_TARGETS
    return tiny_transformer(), tiny_transformer(), TARGETS


@pytest.mark.filterwarnings("ignore:qk_norm fold")
@pytest.mark.parametrize("qk_norm", ["none", "exact"])
@pytest.mark.parametrize("kind", ["text", "image"])
def test_cutting_then_merging_equals_merging_then_cutting(kind, qk_norm, mask):
    first, second, targets = models(kind)
    lora = dense_lora(first, targets, bias=True)
    assert all(any(f"{target}.lora_B.weight" in name for name in lora) for target in targets)
    merged_first = prune(with_weights(first, merged(first, lora, 0.7)), mask, qk_norm=qk_norm).state_dict()
    student = prune(second, mask, qk_norm=qk_norm)
    cut = slice_lora(lora, mask, geometry_of(second), qk_norm=qk_norm)
    check_lora(cut, student.config)
    merged_last = merged(student, cut, 0.7)
    assert set(merged_first) == set(merged_last)
    for name, value in merged_first.items():
        torch.testing.assert_close(merged_last[name], value, rtol=0, atol=1e-6, msg=name)
    changed = [name for name, value in student.state_dict().items() if not torch.equal(value, merged_last[name])]
    assert len(changed) == 2 * sum(name.endswith("lora_A.weight") for name in lora)


@pytest.mark.filterwarnings("ignore:qk_norm fold")
def test_through_diffusers_it_is_the_same_model(mask):
    """The adapter loaded and fused by diffusers, not by hand; the output of both orders agrees."""
    dense = tiny_pipeline()
    lora = dense_lora(dense.transformer, TARGETS)
    merged_first = tiny_pipeline()
    merged_first.load_lora_weights(lora)
    merged_first.fuse_lora()
    merged_first.unload_lora_weights()
    expected = prune(merged_first.transformer, mask, qk_norm="none")
    pruned = WanPipeline(**(dense.components | {"transformer": prune(dense.transformer, mask, qk_norm="none")}))
    with pytest.raises(InputError, match=r"blocks.0.*pare slice-lora LORA --mask MASK --out FILE") as refused:
        pruned.load_lora_weights(lora)
    assert "\n" not in str(refused.value)
    assert not getattr(pruned.transformer, "peft_config", None)
    pruned.load_lora_weights(slice_lora(lora, mask, geometry_of(dense.transformer), qk_norm="none"))
    inputs = torch.randn(1, 4, 3, 4, 4), torch.tensor([500]), torch.randn(1, 8, 16)
    with torch.no_grad():
        unmerged = pruned.transformer(*inputs).sample
        pruned.fuse_lora()
        fused = pruned.transformer(*inputs).sample
        torch.testing.assert_close(fused, expected(*inputs).sample, rtol=0, atol=1e-5)
        torch.testing.assert_close(unmerged, fused, rtol=0, atol=1e-5)
        plain = prune(dense.transformer, mask, qk_norm="none")(*inputs).sample
    assert (fused - plain).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:qk_norm fold")
def test_a_file_is_checked_like_a_dict_and_a_trained_adapter_saved_by_diffusers_loads(tmp_path, mask):
    dense = tiny_transformer()
    student = prune(dense, mask, qk_norm="none")
    student.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["to_q", "to_out.0"]))
    student.save_lora_adapter(tmp_path / "own")
    again = prune(dense, mask, qk_norm="none")
    again.load_lora_adapter(tmp_path / "own", prefix=None)
    assert again.peft_config["default_0"].lora_alpha == 2 * RANK
    save_file(dense_lora(dense, TARGETS), tmp_path / "dense.safetensors")
    for model in (student, again):
        with pytest.raises(InputError, match="slice-lora"):
            model.load_lora_adapter(tmp_path / "dense.safetensors")
    whole = PareWanTransformer3DModel(**{n: v for n, v in dense.config.items() if not n.startswith("_")})
    whole.load_lora_adapter(tmp_path / "dense.safetensors")
    assert whole.peft_config


def kohya(lora, alpha):
    """The names of kohya's trainer, with an alpha for every layer."""
    renamed = {}
    layers = {"attn1": "self_attn", "attn2": "cross_attn", "to_out.0": "o", "net.0.proj": "0", "net.2": "2",
              "to_q": "q", "to_k": "k", "to_v": "v", "add_k_proj": "k_img", "add_v_proj": "v_img"}  # fmt: skip
    for name, value in lora.items():
        stem, ending = name.removeprefix("transformer.").split(".lora_")
        for ours, theirs in layers.items():
            stem = stem.replace(ours, theirs)
        stem = "lora_unet_" + stem.replace(".", "_")
        renamed[f"{stem}.lora_{'down' if ending.startswith('A') else 'up'}.weight"] = value
        renamed[f"{stem}.alpha"] = torch.tensor(float(alpha))
    return renamed


def original(lora):
    """Wan's own names, as in files for other programs."""
    swaps = {"attn1.to_out.0": "self_attn.o", "attn2.to_out.0": "cross_attn.o", "attn1.to_": "self_attn.",
             "attn2.to_": "cross_attn.", "net.0.proj": "0", "net.2": "2"}  # fmt: skip
    renamed = {}
    for name, value in lora.items():
        for ours, theirs in swaps.items():
            name = name.replace(ours, theirs)
        renamed[name.replace("transformer.", "diffusion_model.", 1)] = value
    return renamed


def test_names_of_other_programs_become_those_of_diffusers(mask):
    dense = tiny_transformer()
    lora = dense_lora(dense, TARGETS)
    geometry = geometry_of(dense)
    expected = slice_lora(lora, mask, geometry)
    for named, scale in ((kohya(lora, alpha=RANK / 2), 0.5), (original(lora), 1.0)):
        assert not set(named) & set(lora)
        found = slice_lora(named, mask, geometry)
        assert set(found) == set(expected)
        for name in {name.rsplit(".lora_", 1)[0] for name in found}:
            product = found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
            wanted = expected[f"{name}.lora_B.weight"] @ expected[f"{name}.lora_A.weight"]
            torch.testing.assert_close(product, scale * wanted)
    with pytest.raises(InputError, match="cannot convert"):
        to_diffusers({"lora_unet_blocks_0_self_attn_q.lora_down.weight": torch.zeros(RANK, DIM)})


def test_alphas_and_what_lies_outside_of_blocks_stay(mask):
    geometry = geometry_of(tiny_transformer())
    lora = {
        "transformer.blocks.0.attn1.to_q.alpha": torch.tensor(4.0),
        "transformer.blocks.1.ffn.net.2.alpha": torch.tensor(2.0),
        "transformer.proj_out.lora_A.weight": torch.randn(RANK, DIM),
        "transformer.condition_embedder.text_embedder.linear_1.lora_B.weight": torch.randn(DIM, RANK),
    }
    found = slice_lora(lora, mask, geometry)
    assert set(found) == set(lora) and all(found[name] is value for name, value in lora.items())


def test_a_full_mask_changes_nothing(mask):
    dense = tiny_transformer()
    lora = dense_lora(dense, TARGETS)
    full = Mask(**{part: np.ones_like(getattr(mask, part)) for part in ("self_heads", "cross_heads", "neurons")})
    found = slice_lora(lora, full, geometry_of(dense))
    assert all(torch.equal(found[name], value) for name, value in lora.items())


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("transformer.blocks.0.attn1.to_q.lora_magnitude_vector", (DIM,), "no DoRA"),
        ("transformer.blocks.0.attn1.to_q.lokr_w1", (2, 2), "no LoKr"),
        ("transformer.blocks.0.attn1.to_qkv.lora_B.weight", (3 * DIM, RANK), "fused"),
        ("transformer.blocks.9.attn1.to_q.lora_B.weight", (DIM, RANK), "block 9"),
        ("transformer.blocks.0.attn1.to_q.lora_B.weight", (36, RANK), "36 values; expected 48"),
        ("transformer.blocks.0.ffn.net.2.lora_A.weight", (RANK, 24), "24 values; expected 32"),
    ],
)
def test_what_cannot_be_cut_is_refused(name, shape, words, mask):
    with pytest.raises(InputError, match=words):
        slice_lora({name: torch.zeros(shape)}, mask, geometry_of(tiny_transformer()))


def test_a_mask_of_another_model_is_refused(mask):
    with pytest.raises(InputError, match="mask"):
        slice_lora({}, mask, geometry_of(tiny_transformer(num_layers=3)))


def test_the_check_reads_peft_names_and_knows_a_stock_model():
    config = dict(tiny_transformer().config)
    check_lora({"blocks.0.attn1.to_q.lora_B.default.weight": torch.zeros(DIM, RANK)}, config)
    with pytest.raises(InputError, match=r"made or cut for this model"):
        check_lora({"blocks.0.attn1.to_q.lora_B.default.weight": torch.zeros(36, RANK)}, config)
    with pytest.raises(InputError, match="block 2"):
        check_lora({"blocks.2.attn1.to_q.lora_B.weight": torch.zeros(DIM, RANK)}, config)
