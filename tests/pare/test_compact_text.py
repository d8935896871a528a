"""Text cut to the tokens it has gives the velocities and gradients of the padded one, and leaves no trace."""

import doctest

import pytest
import torch

from pare import compact_text as module
from pare.compact_text import compact_text, used_tokens
from pare.errors import InputError
from pare.transformer import PareWanTransformer3DModel
from pare.width.surgery import prune
from tests.students import inputs, random_mask, teacher


def padded(lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Inputs in float64 whose texts have so many tokens of 512, the rest equal to the last."""
    given = {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in inputs("t2v", batch=len(lengths)).items()
    }
    text = given["encoder_hidden_states"]
    for row, length in enumerate(lengths):
        text[row, length:] = 0
    return given


def models(mode: str) -> torch.nn.Module:
    dense = teacher("t2v").double()
    if mode == "stock":
        return dense
    return prune(dense, random_mask(), qk_norm=mode).double()


def test_examples():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("mode", ["stock", "none", "exact"])
def test_velocities_and_gradients_are_those_of_the_padded_text(mode):
    model, given = models(mode).train(), padded((7, 30))
    found = []
    for context in (False, True):
        model.zero_grad()
        if context:
            with compact_text(model):
                velocity = model(**given)[0]
        else:
            velocity = model(**given)[0]
        velocity.square().sum().backward()
        found.append((velocity.detach(), {name: each.grad.clone() for name, each in model.named_parameters()}))
    (plain, gradients), (cut, cut_gradients) = found
    # The two softmaxes run in float32 inside the compact one.
    assert (plain - cut).abs().max() <= 1e-6 * plain.abs().max()
    for name, gradient in gradients.items():
        assert (gradient - cut_gradients[name]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-9, name


def test_fewer_tokens_go_in_and_all_of_them_where_nothing_is_padded():
    model, seen = teacher("t2v").double(), []
    model.condition_embedder.text_embedder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    with compact_text(model):
        model(**padded((7, 30)))
        model(**padded((512, 3)))
        model(**padded((0, 0)))
    assert seen == [31, 512, 1]
    assert used_tokens(torch.zeros(2, 5, 3)) == 1


@pytest.mark.parametrize("failing", [False, True])
def test_nothing_is_left_behind(failing):
    model = teacher("t2v")
    processors = dict(model.attn_processors)
    with pytest.raises(RuntimeError) if failing else compact_text(model):
        if failing:
            with compact_text(model):
                assert model.attn_processors != processors
                raise RuntimeError
    assert model.attn_processors == processors and not model._forward_pre_hooks


def test_an_image_to_video_model_is_refused_and_attention_of_its_own_is_left_alone():
    with pytest.raises(InputError, match="image-to-video"), compact_text(teacher("i2v")):
        pass
    exact = models("exact")
    assert isinstance(exact, PareWanTransformer3DModel)
    before = dict(exact.attn_processors)
    with compact_text(exact):
        assert exact.attn_processors == before
