"""Routers: one protocol, their scores against direct transcriptions, tables from files, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from pare.depth.decision import choose_blocks
from pare.depth.learned import LearnedRouter, latent_statistics, sinusoidal
from pare.depth.routers import ImportanceRouter, RandomRouter, Router, StaticRouter, TableRouter
from pare.depth.table import DecisionTable
from pare.errors import InputError

LATENTS = torch.zeros(2, 4, 3, 2, 2)
RAN = np.array([[True, True, False, True, True], [True, False, False, True, True]])


def table(scores=None):
    return DecisionTable((900.0, 300.0), RAN, scores)


@pytest.mark.parametrize(
    "router",
    [
        ImportanceRouter([900.0, 300.0], np.ones((2, 5))),
        StaticRouter([1.0, 2.0, 3.0, 4.0, 5.0]),
        RandomRouter(5),
        TableRouter(table()),
        LearnedRouter(5, channels=4),
        LearnedRouter(5, content="none"),
    ],
    ids=lambda router: router.name,
)
def test_every_router_follows_the_protocol(router):
    assert isinstance(router, Router)
    scores = router(torch.tensor([700.0, 10.0]), LATENTS)
    assert scores.shape == (2, router.blocks) and torch.isfinite(scores).all()


def test_importance_is_interpolated_in_the_timestep():
    importance = np.random.default_rng(0).normal(size=(3, 5))
    router = ImportanceRouter([900.0, 500.0, 100.0], importance)
    scores = router(torch.tensor([1000.0, 700.0, 500.0, 0.0]), torch.zeros(4, 1, 1, 1, 1))
    expected = [importance[0], (importance[0] + importance[1]) / 2, importance[1], importance[2]]
    np.testing.assert_allclose(scores.numpy(), expected)


def test_importance_with_a_gap_is_refused():
    values = np.ones((2, 5))
    values[1, 3] = np.nan
    with pytest.raises(InputError, match="block 3 at timestep 300"):
        ImportanceRouter([900.0, 300.0], values)
    with pytest.raises(InputError, match="steps, blocks"):
        ImportanceRouter([900.0], np.ones((2, 5)))


def test_a_list_of_blocks_is_its_own_budget():
    router = StaticRouter.of_blocks([0, 2, 4], 5)
    assert router.budget.count(123.0, 0, 5) == 3
    assert choose_blocks(router(torch.tensor([5.0]), LATENTS[:1]).numpy(), 3)[0].tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert StaticRouter([0.5, 1.0, 2.0]).budget is None
    for kept in ([0, 2], [1, 4], [0, 4, 5]):
        with pytest.raises(InputError, match="first and the last"):
            StaticRouter.of_blocks(kept, 5)


def test_random_scores_depend_on_seed_and_timestep_only():
    def scores(seed, t):
        return RandomRouter(40, seed)(torch.tensor(t), LATENTS[: len(t)])

    assert torch.equal(scores(3, [500.0]), scores(3, [500.0, 20.0])[:1])
    assert not torch.equal(scores(3, [500.0]), scores(4, [500.0]))
    many = np.array([choose_blocks(scores(0, [float(t)]).numpy(), 21)[0] for t in range(400)])
    # Every middle block is as likely as another: 19 of 38, five standard errors around it.
    assert np.abs(many[:, 1:-1].mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(400)


@pytest.mark.parametrize("name", ["routes.json", "routes.parquet"])
@pytest.mark.parametrize("scores", [None, np.arange(10.0).reshape(2, 5)], ids=["without scores", "with scores"])
def test_a_table_is_read_as_it_was_written(name, scores, tmp_path):
    read = DecisionTable.load(table(scores).save(tmp_path / name))
    assert read.timesteps == (900.0, 300.0) and (read.ran == RAN).all()
    assert read.scores is None if scores is None else (read.scores == scores).all()
    assert read.counts == (4, 3) and read.budget.count(290.0, 7, 5) == 3


def test_an_edited_table_is_carried_out_whatever_its_scores_say():
    scores = np.array([[9.0, 1.0, 5.0, 2.0, 9.0], [9.0, 1.0, 5.0, 2.0, 9.0]])
    router = TableRouter(table(scores))
    t = torch.tensor([900.0, 320.0])
    counts = [router.budget.count(float(each), 0, 5) for each in t]
    assert (choose_blocks(router(t, LATENTS).numpy(), np.array(counts)) == RAN).all()
    # Where decisions and scores agree, the scores are passed on as they are.
    agreeing = np.where(RAN, 3.0, 1.0)
    np.testing.assert_array_equal(TableRouter(table(agreeing))(t, LATENTS).numpy(), agreeing)


def test_a_sample_of_a_table_is_chosen(tmp_path):
    path = tmp_path / "routes.parquet"
    cells = [
        (sample, t, step, block) for sample in (0, 1) for step, t in enumerate((900.0, 300.0)) for block in range(5)
    ]
    columns = {
        "sample": [sample for sample, _, _, _ in cells],
        "timestep": [t for _, t, _, _ in cells],
        "block": [block for _, _, _, block in cells],
        "ran": [bool(RAN[step, block]) or (sample, block) == (1, 2) for sample, _, step, block in cells],
    }
    pd.DataFrame(columns).to_parquet(path)
    assert DecisionTable.load(path).ran[:, 2].tolist() == [False, False]
    assert DecisionTable.load(path, sample=1).ran[:, 2].tolist() == [True, True]
    with pytest.raises(InputError, match="sample 7"):
        DecisionTable.load(path, sample=7)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "other/1"},
        {"ran": [[1, 1, 1], [1, 0]]},
        {"ran": [[1, 1, 1], [1, 2, 1]]},
        {"ran": [[1, 1, 1], [0, 1, 1]]},
        {"ran": "all"},
        {"timesteps": [900.0]},
        {"timesteps": [300.0, 900.0]},
        {"timesteps": [1300.0, 900.0]},
        {"timesteps": [True, False]},
        {"scores": [[1, 1, 1], [1, "a", 1]]},
        {"scores": [[1, 1], [1, 1]]},
    ],
    ids=str,
)
def test_a_table_that_cannot_be_carried_out_is_refused(change, tmp_path):
    good = {"schema": "pare-routes/1", "timesteps": [900.0, 300.0], "ran": [[1, 1, 1], [1, 0, 1]]}
    path = tmp_path / "routes.json"
    path.write_text(json.dumps(good))
    assert DecisionTable.load(path).counts == (3, 2)
    path.write_text(json.dumps(good | change))
    with pytest.raises(InputError, match="decision table"):
        DecisionTable.load(path)


@pytest.mark.parametrize("change", ["no column", "a gap", "twice", "not decided"])
def test_a_parquet_table_that_cannot_be_carried_out_is_refused(change, tmp_path):
    path = table().save(tmp_path / "routes.parquet")
    frame = pd.read_parquet(path)
    changed = {
        "no column": frame.drop(columns="ran"),
        "a gap": frame.drop(index=3),
        "twice": pd.concat([frame, frame.iloc[:1]]),
        "not decided": frame.astype({"ran": float}).assign(ran=lambda rows: rows["ran"].where(rows["block"] != 2)),
    }[change]
    changed.to_parquet(path)
    with pytest.raises(InputError, match="decision table"):
        DecisionTable.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="--router"):
        DecisionTable.load(tmp_path / "none.json")


def test_the_learned_router_is_the_formula():
    torch.manual_seed(0)
    router = LearnedRouter(6, channels=4, frequencies=8, hidden=16).double()
    for parameter in router.parameters():
        torch.nn.init.normal_(parameter)
    t, latents = torch.tensor([900.0, 30.0]), torch.randn(2, 4, 3, 5, 7)
    x = latents.double().numpy()
    expected = []
    for sample, time in zip(x, t.tolist(), strict=True):
        per_channel = [
            [c.mean() for c in sample],
            [np.sqrt(((c - c.mean()) ** 2).mean()) for c in sample],
            [np.std(c[1:] - c[:-1]) for c in sample],
        ]
        content = np.concatenate(per_channel)
        content = (content - content.mean()) / np.sqrt(content.var() + 1e-5)
        content = content * router.content_norm.weight.detach().numpy() + router.content_norm.bias.detach().numpy()
        angles = time * 10000.0 ** (-np.arange(4) / 4)
        values = np.concatenate([np.cos(angles), np.sin(angles), content])
        for layer in (router.first, router.second):
            values = layer.weight.detach().numpy() @ values + layer.bias.detach().numpy()
            values = values / (1 + np.exp(-values))
        expected.append(router.last.weight.detach().numpy() @ values + router.last.bias.detach().numpy())
    np.testing.assert_allclose(router(t, latents).detach().numpy(), expected, rtol=2e-4, atol=2e-3)


def test_one_frame_has_no_motion():
    assert latent_statistics(torch.randn(1, 2, 1, 4, 4))[0, 4:].tolist() == [0.0, 0.0]


def test_half_of_the_embedding_is_cosine():
    assert sinusoidal(torch.tensor([1.0]), 256).shape == (1, 256)
    assert sinusoidal(torch.tensor([1.0]), 256)[0, 0].item() == pytest.approx(np.cos(1.0))


def test_the_router_of_image_to_video_has_about_1_1_million_parameters():
    router = LearnedRouter(40, content="image", content_width=1280)
    assert sum(each.numel() for each in router.parameters()) == 1_070_120
    image = torch.randn(2, 1280)
    assert router(torch.tensor([1.0, 2.0]), LATENTS, image).shape == (2, 40)
    with pytest.raises(InputError, match="no image"):
        router(torch.tensor([1.0, 2.0]), LATENTS)


def test_an_untrained_router_ranks_by_importance():
    router, importance = LearnedRouter(5, channels=4), torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    router.set_importance(importance)
    scores = router(torch.tensor([500.0]), LATENTS[:1])[0]
    torch.testing.assert_close(scores, ((importance - 3) / importance.std(correction=0)))
    with pytest.raises(InputError, match="importance"):
        router.set_importance(torch.full((5,), float("nan")))


def test_a_router_is_made_again_from_its_settings():
    for content in ("latent", "image", "none"):
        router = LearnedRouter(5, content=content, channels=3, content_width=7, frequencies=6, hidden=9)
        again = LearnedRouter(5, **router.settings())
        again.load_state_dict(router.state_dict())
    with pytest.raises(InputError, match="router content"):
        LearnedRouter(5, content="text")
