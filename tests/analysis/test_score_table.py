"""Tables of scores: written by our scorers or by others, read into a mask."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.evidence.answer import Answer, write_answer
from analysis.head_scores import head_scores
from analysis.importance import run_importance
from analysis.score_table import read_scores, score_table, write_scores
from analysis.scores import Scores, projected_energy_scores
from pare.errors import InputError
from pare.geometry import Geometry
from tests.runs_fixture import make_run

GEOMETRY = Geometry(blocks=2, heads=3, head_dim=16, ffn=64, in_channels=8, out_channels=8, text_dim=64)
SCORES = Scores("demo", {kind: np.random.default_rng(i).random((4, 2, 3)) for i, kind in enumerate(("self", "cross"))})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "run", blocks=2, heads=3, steps=2, samples=3)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_is_written_is_read(tmp_path, ending):
    path = write_scores(SCORES, tmp_path / f"scores.{ending}")
    found = read_scores(path, GEOMETRY)
    for kind in ("self", "cross"):
        np.testing.assert_allclose(found.score(kind), SCORES.score(kind), rtol=1e-12)
    table = score_table(SCORES)
    assert len(table) == 12 and (table["n"] == 4).all() and (table["low"] <= table["score"]).all()


def test_rows_of_one_head_are_averaged_and_self_is_meant_without_a_kind(tmp_path):
    rows = [(block, head, block * 3 + head + extra) for block in range(2) for head in range(3) for extra in (0, 1)]
    pd.DataFrame(rows, columns=["block", "head", "score"]).to_csv(tmp_path / "s.csv", index=False)
    found = read_scores(tmp_path / "s.csv", GEOMETRY)
    assert list(found.values) == ["self"]
    np.testing.assert_array_equal(found.score(), np.arange(6).reshape(2, 3) + 0.5)


def test_a_sweep_is_read_by_its_change(tmp_path):
    heads = [("self", block, head) for block in range(2) for head in range(3)]
    sets = {f"{kind} {block}.{head}": [[kind, block, head]] for kind, block, head in heads}
    sets["two"] = [["self", 0, 0], ["self", 0, 1]]
    rows = [
        {"head_set": name, "sample": sample, "step": 0, "change": at + sample}
        for at, name in enumerate(sets)
        for sample in range(2)
    ]
    lines = [{"schema": "pare-sweep/1", "settings": {"head_sets": sets}}, *rows]
    (tmp_path / "s.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + '\n{"head_set": "self 0.0", "cha')
    np.testing.assert_array_equal(read_scores(tmp_path / "s.jsonl", GEOMETRY).score(), np.arange(6).reshape(2, 3) + 0.5)


def test_another_column_of_a_table_or_of_an_answer_can_be_the_score(run, tmp_path):
    rows = [("self", block, head, 0.0, block * 3 + head) for block in range(2) for head in range(3)]
    table = pd.DataFrame(rows, columns=["kind", "block", "head", "effect", "gate_gradient"])
    table.to_csv(tmp_path / "s.csv", index=False)
    about = {"rule": "r", "measured": "m", "n": {"heads": 6}, "claim": "c", "verdict": "yes", "sentence": "s"}
    write_answer(Answer(question="scores", tables={"heads": table}, **about), tmp_path)
    for name in ("s.csv", "evidence.json"):
        found = head_scores(f"{tmp_path / name}#gate_gradient", run.geometry, run=run)
        np.testing.assert_array_equal(found.values["self"], np.arange(6).reshape(2, 3))
        assert found.source["scorer"] == f"{name}#gate_gradient" and found.source["cross_scorer"] == "pare"
        assert not read_scores(f"{tmp_path / name}#effect", GEOMETRY).score().any()
        with pytest.raises(InputError, match=r"no column gate_taylor; expected .*effect, gate_gradient"):
            read_scores(f"{tmp_path / name}#gate_taylor", GEOMETRY)
    write_answer(Answer(question="alpha", tables={"alphas": table}, **about), tmp_path)
    with pytest.raises(InputError, match="without scores of heads"):
        read_scores(f"{tmp_path / 'evidence.json'}#effect", GEOMETRY)


@pytest.mark.parametrize(
    "text, words",
    [
        ("block,head\n0,0\n", "no column score"),
        ("block,head,score\n", "no rows"),
        ("block,head,score\n2,0,1\n", "self block 2.*0 to 1"),
        ("block,head,score\n0,0.5,1\n", "self head 0.5.*0 to 2"),
        ("block,head,score\n0,0,1\n", "no finite score for self block 0 head 1"),
        ("block,head,score\n0,0,inf\n", "no finite score for self block 0 head 0"),
        ("kind,block,head,score\nboth,0,0,1\n", "kind both"),
        ('"', "expected a table"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, words):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_scores(tmp_path / "s.csv", GEOMETRY)


def test_files_that_are_no_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_scores(tmp_path / "none.csv", GEOMETRY)
    (tmp_path / "s.parquet").write_bytes(b"no")
    (tmp_path / "s.jsonl").write_text("[]\n")
    for name in ("s.parquet", "s.jsonl"):
        with pytest.raises(InputError, match="expected a table"):
            read_scores(tmp_path / name, GEOMETRY)
    with pytest.raises(InputError, match=r"csv or \.parquet"):
        write_scores(SCORES, tmp_path / "s.txt")


def test_scorers_of_a_run_by_name(run, tmp_path):
    found = head_scores("pare", run.geometry, run=run)
    for kind, values in run_importance(run).items():
        np.testing.assert_array_equal(found.values[kind], values)
    drawn = head_scores("random", GEOMETRY, seed=4)
    assert drawn.values["self"].shape == (2, 3) and drawn.source == {"scorer": "random", "seed": 4}
    assert not np.array_equal(drawn.values["self"], head_scores("random", GEOMETRY, seed=5).values["self"])
    with pytest.raises(InputError, match="projected_energy"):
        projected_energy_scores(run)


def test_a_table_without_cross_attention_is_completed_by_eq_3(run, tmp_path):
    path = write_scores(Scores("mine", {"self": np.arange(6.0).reshape(2, 3)}), tmp_path / "mine.csv")
    found = head_scores(str(path), run.geometry, run=run)
    np.testing.assert_array_equal(found.values["self"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(found.values["cross"], run_importance(run)["cross"])
    assert found.source["scorer"] == "mine.csv" and found.source["cross_scorer"] == "pare"
    assert len(found.source["sha256"]) == 64
    with pytest.raises(InputError, match="no scores for cross-attention, and no run"):
        head_scores(str(path), GEOMETRY)


@pytest.mark.parametrize(
    "scorer, words",
    [
        ("magic", "--scorer.*magic"),
        ("gate_taylor", "which runs the model.*evidence.json#gate_taylor"),
        ("magnitude", "--model MODEL"),
        ("pare", "RUN: got none"),
    ],
)
def test_what_a_scorer_lacks_is_said(scorer, words):
    with pytest.raises(InputError, match=words):
        head_scores(scorer, GEOMETRY)
