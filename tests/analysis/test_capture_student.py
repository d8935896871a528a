"""Capture of a pruned model: its heads and neurons at the places that they have in the base model."""

import numpy as np
import pytest
import torch

from analysis.capture import CaptureSpec, capture, output_weight_norms
from analysis.catalogue import STATISTICS
from analysis.checks import check_bits, check_ratio
from analysis.places import Places
from pare.student import kept
from pare.width.masked import masked
from tests.students import inputs, random_mask, student, teacher


def measured(model, given):
    with torch.no_grad(), capture(model, CaptureSpec(tuple(STATISTICS))) as recorder:
        output = model(**given, return_dict=False)[0]
    return output, recorder.take()[0].arrays, recorder.take_moments()


@pytest.mark.parametrize("kind", ["t2v", "i2v"])
@pytest.mark.parametrize("how", ["none", "exact"])
def test_what_stays_is_measured_at_its_place_and_the_rest_is_absent(kind, how):
    model, given = student(kind, how), inputs(kind)
    keep = kept(dict(model.config))
    assert not keep["self_heads"].all() and not keep["cross_heads"].all() and not keep["neurons"].all()
    with torch.no_grad():
        plain = model(**given, return_dict=False)[0]
    output, arrays, moments = measured(model, given)
    assert torch.equal(output, plain)
    parts = {"self": keep["self_heads"], "cross": keep["cross_heads"], "ffn": keep["neurons"]}
    for name, values in (arrays | moments | output_weight_norms(model)).items():
        part = parts.get(name.partition("/")[0])
        whole = part is None or (how == "exact" and name.endswith("_square") and not name.startswith("ffn"))
        there = np.isfinite(values).reshape(len(values), -1) if part is None else np.isfinite(values)
        expected = np.ones_like(there) if whole else part.reshape(*part.shape, *[1] * (values.ndim - 2))
        assert (there == expected).all(), name


@pytest.mark.parametrize("kind", ["t2v", "i2v"])
def test_a_student_that_equals_masking_has_the_masked_teachers_numbers(kind):
    model, mask, given = teacher(kind), random_mask(), inputs(kind)
    found = measured(student(kind, "exact"), given)
    with masked(model, mask):
        expected = measured(model, given)
    compared = 0
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        for name, values in ours.items():
            if name.startswith("self/frame_map"):
                continue
            there = np.isfinite(values)
            np.testing.assert_allclose(values[there], theirs[name][there], rtol=1e-3, atol=1e-5, err_msg=name)
            compared += there.sum()
    assert compared > 100


@pytest.mark.parametrize("how", ["none", "exact"])
def test_doctor_checks_hold_on_a_student(how):
    model, given = student("t2v", how), inputs("t2v")
    frames = given["hidden_states"].shape[2]
    assert check_bits(model, given | {"return_dict": False}).ok
    ratio = check_ratio(model, given | {"return_dict": False}, frames)
    assert ratio.ok and ratio.numbers["heads"] == Places(model.config).kept["self"].sum()
