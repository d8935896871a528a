"""A training read back from its files: curves, intervals, roles; and what is torn or foreign."""

import doctest
import json
import math

import numpy as np
import pytest
from scipy import stats

from analysis import role_changes as changes_module
from analysis.figures import training as figures
from analysis.role_changes import counts_by_block, role_changes
from analysis.roles import LETTERS, bootstrap_interval
from pare.errors import InputError
from pare.geometry import DEMO, read_geometry
from pare.training import log
from pare.training.log import parse_log
from tests.training_files import SIGMAS, log_lines, make_training
from workbench.training_record import Training


@pytest.mark.parametrize("module", [figures, changes_module, log])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_curves_are_the_lines_of_the_log(tmp_path):
    training = Training.open(make_training(tmp_path, stage="joint", validated=(10, 20)))
    assert training.losses == ["loss", "feature", "teacher", "data", "temporal"]
    assert training.curves["loss"].tolist() == [line["loss"] for line in log_lines(20)]
    assert training.curves["blocks_run"].tolist() == [5.5] * 20
    # A point is the mean of 4 samples of 2 turns.
    assert training.samples_per_step == 8
    assert (training.done, training.steps, training.stage, training.student) == (20, 20, "joint", None)
    assert set(training.clips) == {10, 20} and training.teacher_clip(1) and training.teacher_clip(2) is None


def test_errors_have_the_t_interval_of_their_samples(tmp_path):
    training = Training.open(make_training(tmp_path, validated=(10,)))
    row = training.errors.query("against == 'data' and sigma == 0.8").iloc[0]
    low, high = stats.t.interval(0.95, df=3, loc=0.04, scale=0.01)
    assert (row["mean"], row["n"]) == (0.04, 4)
    assert row["low"] == pytest.approx(low) and row["high"] == pytest.approx(high)
    assert len(training.errors) == 2 * len(SIGMAS)
    # Consistency is a mean, not a share.
    (share,) = training.shares.to_dict("records")
    assert (share["factor"], share["share"], share["n"]) == ("digit", 0.5, 2)
    # Wilson's interval of 1 of 2.
    z = stats.norm.ppf(0.975)
    centre, half = (0.5 + z**2 / 4) / (1 + z**2 / 2), z / (1 + z**2 / 2) * math.sqrt(0.5 * 0.5 / 2 + z**2 / 16)
    assert (share["low"], share["high"]) == (pytest.approx(centre - half), pytest.approx(centre + half))


def test_a_single_held_out_sample_has_no_interval(tmp_path):
    training = make_training(tmp_path)
    with (training / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 20, "validation": {"n": 1, "data error at sigma 0.5": 0.3}}) + "\n")
    row = Training.open(training).errors.iloc[0]
    assert row["mean"] == 0.3 and math.isnan(row["low"]) and row["n"] == 1


def test_a_resumed_log_repeats_steps_and_the_last_record_holds():
    lines = [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.0},
        {"step": 2, "validation": {"n": 1}},
        {"step": 2, "loss": 1.0},
    ]
    records, torn = parse_log("\n".join(map(json.dumps, lines)) + '\n[1]\n{"loss": 1}\n{"st')
    assert records == [lines[0], lines[3], lines[2]] and torn == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema": "pare-training/1"}',
        '{"schema": "pare-run/1", "settings": {}, "model": {}, "data": {}}',
    ],
)
def test_a_foreign_record_is_refused_in_one_line(tmp_path, text):
    training = make_training(tmp_path)
    (training / "training.json").write_text(text)
    with pytest.raises(InputError, match=r"training\.json") as error:
        Training.open(training)
    assert "\n" not in str(error.value)


def test_a_training_without_a_log_yet_has_no_curves(tmp_path):
    training = make_training(tmp_path)
    (training / "log.jsonl").unlink()
    found = Training.open(training)
    assert found.losses == [] and found.done == 0 and not len(found.errors) and not len(found.shares)


def test_changed_roles_are_those_of_a_direct_transcription(tmp_path):
    draw = np.random.default_rng(0)
    teacher, student = draw.uniform(0, 1, (2, 5, 3, 4, 6))
    student[..., 1, 2] = np.nan
    found = role_changes(teacher, student, 0.6, 0.4)
    letter = lambda r: "S" if r > 0.6 else "T" if r < 0.4 else "M"  # noqa: E731
    expected = {}
    for block in range(4):
        for head in range(6):
            before, after = (
                [each[i, j, block, head] for i in range(5) for j in range(3)] for each in (teacher, student)
            )
            if not np.isnan(after).any() and letter(np.mean(before)) != letter(np.mean(after)):
                pairs = [
                    np.mean([student[i, j, block, head] - teacher[i, j, block, head] for j in range(3)])
                    for i in range(5)
                ]
                expected[block, head] = (
                    letter(np.mean(before)),
                    letter(np.mean(after)),
                    np.mean(after) - np.mean(before),
                    pairs,
                )
    assert {(row.block, row.head) for row in found.itertuples()} == set(expected) and len(expected) > 2
    for row in found.itertuples():
        before, after, change, pairs = expected[row.block, row.head]
        assert (row.teacher, row.student, row.n) == (before, after, 5) and row.change == pytest.approx(change)
        assert min(pairs) <= row.low <= row.change <= row.high <= max(pairs)
        assert row.clear == (row.low > 0 or row.high < 0)
    sizes = found["change"].abs().tolist()
    assert sizes == sorted(sizes, reverse=True)
    # Redrawn samples are those of the pairs.
    first = expected[found.iloc[0]["block"], found.iloc[0]["head"]]
    everyone = np.array([expected[tuple(key)][3] for key in sorted(expected)]).T
    low, _ = bootstrap_interval(everyone)
    assert low[sorted(expected).index((found.iloc[0]["block"], found.iloc[0]["head"]))] == found.iloc[0]["low"], first
    assert list(role_changes(teacher, teacher).columns) == list(found.columns) and not len(
        role_changes(teacher, teacher)
    )
    with pytest.raises(InputError, match="same samples"):
        role_changes(teacher, student[:3])


def test_roles_of_a_training_leave_out_the_heads_that_were_cut(tmp_path):
    training, geometry = Training.open(make_training(tmp_path, stage="joint", validated=(10,))), read_geometry(DEMO)
    teacher, student = training.ratios(None), training.ratios(10)
    counts = counts_by_block(student.ratio)
    assert counts[list(LETTERS)].sum(axis=1).tolist() == [geometry.heads - 1] * geometry.blocks
    assert counts["S"].sum() == 0 and counts_by_block(teacher.ratio)["S"].tolist() == [1] * geometry.blocks
    changed = role_changes(teacher.ratio, student.ratio)
    assert len(changed) == geometry.blocks and set(changed["head"]) == {0} and changed["clear"].all()
    assert teacher.ran is None and student.ran.shape == (2, len(SIGMAS), geometry.blocks)
    assert training.ratios(11) is None and training.role_steps == [10]
    path = training.folder / "roles" / "000010.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="measured ratios"):
        training.ratios(10)
