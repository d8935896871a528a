"""`pare info` with a mask and a memory: the published student, what fits, and what is refused."""

import json

import numpy as np
import pytest

from pare import mask as masks
from pare.errors import InputError
from pare.mask import Mask
from workbench.cli import main
from workbench.commands.info import info, render


def first_of(units, kept, blocks=40):
    return np.tile(np.arange(units) < kept, (blocks, 1))


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """A mask that keeps as many as the paper does: 28 + 28 of 40 heads, 9,600 of 13,824 neurons."""
    path = tmp_path_factory.mktemp("masks") / "paper.safetensors"
    return masks.save(Mask(first_of(40, 28), first_of(40, 28), first_of(13824, 9600)), path)


def test_a_mask_gives_the_published_student(paper):
    found = info("wan2.1-t2v-14b", mask=paper)
    assert round(found["parameters"]["in_blocks"] / 1e9, 3) == 9.808
    assert round(found["flops_per_forward"]["total"] / found["dense"]["flops_per_forward"], 3) == 0.699
    assert found["memory"]["weights"] == 2 * found["parameters"]["total"]
    text = render(found)
    assert "28 self-heads" in text and "70.3% of 14,288,491,584 parameters, 69.9%" in text


def test_queries_and_keys_that_stay_whole_cost_more(paper):
    folded, exact = (info("wan2.1-t2v-14b", mask=paper, qk_norm=mode) for mode in ("fold", "exact"))
    assert exact["parameters"]["total"] > folded["parameters"]["total"]
    assert exact["flops_per_forward"]["total"] > folded["flops_per_forward"]["total"]


def test_what_fits_with_and_without_offload(paper):
    dense, student = (info("wan2.1-t2v-14b", mask=mask, gib=24) for mask in (None, paper))
    assert not dense["fits"]["none"]["fits"] and dense["fits"]["none"]["largest"] is None
    assert dense["fits"]["group"]["fits"] and student["fits"]["none"]["fits"]
    weights = dense["memory"]["weights"] + dense["memory"]["activations"]
    assert dense["fits"]["none"]["total"] == weights
    text = render(dense)
    assert (
        "in 24 GiB       all weights there: does not fit" in text
        and "one block at a time (--offload group): fits" in text
    )
    assert "text encoder and VAE not counted" in text
    demo = info("demo", gib=1)
    assert demo["fits"]["none"]["weights"] > demo["memory"]["weights"] and "with encoders and VAE" in render(demo)


def test_bytes_follow_the_precision():
    half, whole = (info("wan2.1-t2v-1.3b", gib=8, dtype=dtype) for dtype in ("bfloat16", "float32"))
    assert whole["memory"]["weights"] == 2 * half["memory"]["weights"]
    assert whole["fits"]["group"]["weights"] == 2 * half["fits"]["group"]["weights"]


@pytest.mark.parametrize(
    ("given", "words"),
    [({"gib": 0.0}, "--gib"), ({"dtype": "int8"}, "--dtype"), ({"qk_norm": "all"}, "--qk-norm"),
     ({"mask": "nowhere"}, "MASK")],
)  # fmt: skip
def test_bad_input_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        info("wan2.1-t2v-14b", **given)


def test_a_mask_of_another_model_is_refused_with_both_names(paper, capsys):
    assert main(["info", "wan2.1-t2v-1.3b", "--mask", str(paper)]) == 2
    assert "wan2.1-t2v-1.3b" in capsys.readouterr().err


def test_on_the_command_line(paper, capsys):
    assert main(["info", "wan2.1-t2v-14b", "--mask", str(paper), "--gib", "16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gib"] == 16 and found["fits"]["group"]["largest"]["height"] > 480
