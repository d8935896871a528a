"""`pare slice-lora`: the file it writes loads on the pruned model, and bad input leaves nothing behind."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pare import mask as masks
from pare.errors import InputError
from pare.mask import Mask
from pare.width.surgery import prune
from tests.tiny import BLOCKS, FFN, HEADS, save, tiny_pipeline, tiny_transformer
from workbench.cli import main
from workbench.commands.slice_lora import render, slice_lora

RANK = 2


def lora_of(transformer):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, module in transformer.blocks.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(("to_q", "to_out.0", "net.2")):
            tensors[f"transformer.blocks.{name}.lora_A.weight"] = torch.randn(
                RANK, module.in_features, generator=generator
            )
            tensors[f"transformer.blocks.{name}.lora_B.weight"] = torch.randn(
                module.out_features, RANK, generator=generator
            )
    return tensors


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A dense pipeline's folder, a LoRA of it, a mask, and two students' transformers."""
    root = tmp_path_factory.mktemp("lora")
    save(tiny_pipeline(), root / "dense")
    transformer = tiny_transformer()
    heads, neurons = np.arange(HEADS) < 3, np.arange(FFN) < 24
    mask = Mask(np.tile(heads, (BLOCKS, 1)), np.tile(heads, (BLOCKS, 1)), np.tile(neurons, (BLOCKS, 1)))
    masks.save(mask, root / "mask.safetensors")
    for qk_norm in ("none", "exact"):
        prune(transformer, mask, qk_norm=qk_norm).save_pretrained(root / qk_norm)
    about = {"r": RANK, "lora_alpha": 4, "target_modules": ["to_q", "to_out.0", "net.2"]}
    adapter = {"lora_adapter_metadata": json.dumps({f"transformer.{name}": value for name, value in about.items()})}
    save_file(lora_of(transformer), root / "lora.safetensors", metadata=adapter | {"format": "pt"})
    return root


def tensors_of(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize("qk_norm", ["none", "exact"])
def test_a_mask_and_the_pruned_model_itself_give_the_same_file_and_it_loads(files, tmp_path, qk_norm):
    by_mask = slice_lora(
        files / "lora.safetensors", mask=files / "mask.safetensors", out=tmp_path / "a.safetensors",
        model=str(files / "dense"), qk_norm=qk_norm,
    )  # fmt: skip
    by_student = slice_lora(files / "lora.safetensors", mask=files / qk_norm, out=tmp_path / "b.safetensors")
    assert by_student["qk_norm"] == by_mask["qk_norm"] == qk_norm
    (first, header), (second, _) = (tensors_of(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads(header["lora_adapter_metadata"])["transformer.lora_alpha"] == 4
    about = json.loads(header["pare"])
    assert about["mask"] == "mask.safetensors" and about["counts"]["self_heads"] == [3, 3]
    shape = first["transformer.blocks.0.attn1.to_q.lora_B.weight"].shape
    assert shape[0] == (48 if qk_norm == "exact" else 36)
    student = prune(tiny_transformer(), masks.load(files / "mask.safetensors"), qk_norm=qk_norm)
    with pytest.raises(InputError, match="slice-lora"):
        student.load_lora_adapter(files / "lora.safetensors")
    student.load_lora_adapter(tmp_path / "a.safetensors")
    assert student.peft_config["default_0"].lora_alpha == 4
    changed = BLOCKS * (3 if qk_norm == "exact" else 5)
    assert by_mask["changed"] == changed and f"{changed} of {by_mask['tensors']} tensors" in render(by_mask)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora": "none.safetensors"}, "none.safetensors"),
        ({"mask": "lora.safetensors"}, "pare-mask"),
        ({"out": "lora.bin"}, ".safetensors"),
        ({"qk_norm": "all"}, "--qk-norm"),
        ({"model": None}, "--model"),
        ({"lora": "mask.safetensors"}, "no LoRA"),
        ({"model": "wan2.1-t2v-1.3b"}, "mask"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(files, tmp_path, change, words):
    given = {"lora": "lora.safetensors", "mask": "mask.safetensors", "model": "dense", "qk_norm": "fold"} | change
    model = str(files / "dense") if given["model"] == "dense" else given["model"]
    out = tmp_path / given.pop("out", "cut.safetensors")
    with pytest.raises(InputError, match=words) as refused:
        slice_lora(files / given["lora"], mask=files / given["mask"], out=out, model=model, qk_norm=given["qk_norm"])
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_on_the_command_line(files, tmp_path, capsys):
    words = ["slice-lora", str(files / "lora.safetensors"), "--mask", str(files / "none"), "--out"]
    assert main([*words, str(tmp_path / "cut.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["qk_norm"] == "none"
    assert main([*words, str(tmp_path / "cut.pt")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
