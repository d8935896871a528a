"""The rows of the table and what is read out of them: equal budgets, shared jobs, answers of every kind, the page."""

import dataclasses
import doctest
import io

import numpy as np
import pytest

from analysis.paired import Difference
from pare import cost
from pare.errors import InputError
from pare.geometry import DEMO, read_geometry
from workbench.demo.results import answers, page, progress, rows, store, tables
from workbench.demo.results.__main__ import rows_of
from workbench.demo.results.answers import QUESTIONS, Question, answer, bars, changes, decide, is_clear
from workbench.demo.results.effort import Effort, plan_lines
from workbench.demo.results.measured import Results
from workbench.demo.results.page import BLOCKS, NOT_YET, PAGE, write_page
from workbench.demo.results.rows import TEACHER, Budget, Row, Stage, all_rows, choose, jobs_of

PROMPTS = [
    "a red 7 moving up, fast",
    "a blue 3 standing still",
    "a green 1 moving left, slow",
    "a red 2 moving down, fast",
]
SHIFTS = {"digit": 0.0, "flow_error": 0.0}


@pytest.mark.parametrize("module", [answers, page, progress, rows, store, tables], ids=lambda module: module.__name__)
def test_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.fixture(scope="module")
def demo():
    effort = Effort.of("demo", Budget())
    return effort, rows_of(effort)


def test_every_row_has_the_same_steps_and_baselines_the_active_parameters_of_pare(demo):
    effort, found = demo
    assert {row.steps for row in found if row.group in ("main", "baseline")} == {Budget().steps}
    by_key = {row.key: row for row in found}
    pare = effort.cost(by_key["pare"])
    block = cost.block_parameters(read_geometry(DEMO)).total
    for row in found:
        if row.group == "baseline":
            assert abs(effort.cost(row).active_parameters - pare.active_parameters) <= (block / 2 if row.static else 0)
    assert by_key["pare"].seeds == 3 and by_key["alpha-1"].seeds == 1 and by_key[TEACHER].seeds == 0
    assert by_key["pare-longer"].steps == 3 * Budget().steps and by_key["pare-longer"].seeds == 1
    # The student of four steps runs a tenth of the forwards.
    assert effort.cost(by_key["four-steps"]).flops < pare.flops / 9


def test_the_table_takes_at_most_four_hours_on_two_cores(demo):
    effort, found = demo
    jobs = jobs_of(found)
    assert sum(map(effort.seconds, jobs)) <= 4 * 3600
    lines = plan_lines(found, jobs, effort)
    assert len(lines) == len(found) + 2 and "hours" in lines[0] and "on two idle cores" in lines[-1]


def test_what_rows_share_is_done_once_and_before_what_needs_it(demo):
    jobs = jobs_of(demo[1])
    names = [(job.kind, job.name) for job in jobs]
    assert len(set(names)) == len(names)
    assert names.count(("training", "pare-s0.width400")) == 1
    made = set()
    for job in jobs:
        if job.source is not None:
            kinds = ("student", "training")
            assert any((kind, job.source) in made for kind in kinds), job
        made.add((job.kind, job.name))
    seeds = [job.seed for job in jobs]
    assert seeds == sorted(seeds)
    trainings = [job for job in jobs if job.kind == "training"]
    # Stage I of PARE, width only, four steps and the timestep-only router is one training a seed.
    assert sum(job.name.endswith(".width400") and job.name.count(".") == 1 for job in trainings if job.seed == 1) == 1


def test_rows_are_chosen_by_key_and_the_teacher_stays():
    every = all_rows(Budget(), 4)
    assert [row.key for row in choose(every, ["random", "pare"])] == [TEACHER, "pare", "random"]
    assert choose(every, None) == every
    with pytest.raises(InputError, match="--rows: got pear"):
        choose(every, ["pear"])


# what is read out of measurements; the numbers here are only for the rules


def row(key, seeds=1, group="baseline"):
    return Row(key, key, group, "pare", (Stage("width", 1, (("key", key),)),), seeds)


def scored(name, seed=0, count=40, **values):
    """Scores of an evaluation: every metric a value per video, or one for all."""

    def of(number):
        return {
            key: (value[number] if isinstance(value, list | np.ndarray) else value) for key, value in values.items()
        }

    videos = [{"prompt": PROMPTS[n % 4], "seed": n, "values": of(n)} for n in range(count)]
    return {"name": name, "videos": videos, "parameters": 10}


TEACHER_ROW = Row(TEACHER, TEACHER, "teacher", seeds=0)
NOISE = np.random.default_rng(0).normal(scale=0.01, size=40)
SEEN = {"digit": 1, "colour": 1, "direction": 1, "speed": 1, "consistent": 1, "flow_magnitude": 1.0}


def results_of(**measured):
    """{row key: [values of each seed]} beside a teacher that is always right."""
    found = {TEACHER: scored(TEACHER, **SEEN)}
    for key, seeds in measured.items():
        for seed, values in enumerate(seeds):
            one = row(key)
            found[one.evaluation(seed)] = scored(one.evaluation(seed), **(SEEN | {"flow_error": 0.1} | values))
    return Results(found)


QUESTION = Question("Better?", "pare", "other", ("flow_error",))


@pytest.mark.parametrize(
    "pare, other, found, reason",
    [
        ([0.1], [0.2], "undecided", "not measured"),
        ([0.1, 0.12], [0.2], "yes", "better"),
        ([0.2, 0.21], [0.1], "no", "worse"),
        ([0.1, 0.5], [0.2], "undecided", "no larger than"),
        ([0.1, 0.12], [0.1], "undecided", "holds zero"),
        ([1.0, 1.1], [1.0], "no", "changes nothing"),
        ([0.1, 0.5, 0.3], [0.6, 0.9, 0.8], "yes", "better"),
        ([0.1, 0.5, 0.3], [0.4, 0.2, 0.31], "undecided", "holds zero"),
    ],
)
def test_a_question_is_answered_by_the_rule(pare, other, found, reason):
    # From 1 on the two rows have the same videos.
    shared = {"pare": [{"flow_error": value + NOISE} for value in pare]}
    shared["other"] = [{"flow_error": value + (NOISE if value >= 1 else NOISE[::-1])} for value in other]
    both = [row("pare", len(pare)), row("other", len(other))]
    (verdict,) = answer(QUESTION, both, results_of(**shared))
    assert verdict.answer == found and reason in verdict.reason


def test_a_question_about_a_row_that_is_missing_says_so():
    (verdict,) = answer(QUESTION, [row("pare")], results_of(pare=[{}]))
    assert verdict.answer == "not measured" and "other" in verdict.reason
    assert {question.row for question in QUESTIONS} | {question.other for question in QUESTIONS} <= {
        each.key for each in all_rows(Budget(), 4)
    }


def test_a_higher_score_counts_as_better_and_a_higher_error_as_worse():
    better = decide(Difference(9, 9, 0.0, 1.0, 1.0, 0.5, 1.5), 3, float("nan"), "asked")
    assert better.answer == "yes"
    assert (
        decide(dataclasses.replace(better.improvement, difference=-1.0, low=-1.5, high=-0.5), 3, 9.0, "x").answer
        == "no"
    )


def test_bars_are_met_or_missed_in_points():
    right = np.ones(40)
    right[:2] = 0
    wrong = right.copy()
    wrong[:10] = 0
    found = bars([TEACHER_ROW, row("pare", 1, "main")], results_of(pare=[{"digit": wrong, "colour": right}]))
    by_score = {bar.score: bar for bar in found}
    assert not by_score["digit"].met and by_score["digit"].points.difference == pytest.approx(-25)
    assert not by_score["colour"].met and by_score["speed"].met and by_score["speed"].sure
    assert by_score["colour"].points.difference == pytest.approx(-5) and not by_score["colour"].sure
    four = bars([row("four-steps")], results_of(**{"four-steps": [{"colour": right}]}))
    assert {bar.score: bar.met for bar in four}["colour"]


def clear(found: Results) -> set[tuple[str, str]]:
    by_score = changes(row("pare"), found)
    return {(score, where) for score, all_of in by_score.items() for where, one in all_of.items() if is_clear(one)}


def test_what_is_lost_is_named_with_the_prompts_it_is_lost_in():
    fast = np.array([PROMPTS[n % 4].endswith("fast") for n in range(40)])
    lost = results_of(pare=[{"speed": np.where(fast, 0, 1)}])
    assert clear(lost) == {("speed", "all"), ("speed", "fast")}
    assert changes(row("pare"), lost)["speed"]["fast"].difference == -100
    assert {score for score, _ in clear(results_of(pare=[{"flow_magnitude": 0.5 + NOISE}]))} == {"flow_magnitude"}
    assert clear(results_of(pare=[{}])) == set()


def test_differences_are_paired_over_prompts_of_the_same_seed():
    found = results_of(pare=[{"digit": [0, *[1] * 39]}])
    change = found.to_teacher(row("pare"), "digit")
    assert change.n == 40 and change.difference == pytest.approx(-1 / 40)
    assert found.mean(row("pare"), "asked").mean == pytest.approx(1 - 1 / 160)
    assert found.mean(row("pare"), "psnr").n == 0
    still = found.speeds()["still"]
    assert still.sum() == 10 and found.to_teacher(row("pare"), "digit", still).difference == 0


# the page


def test_tables_hold_what_is_measured_and_name_what_is_not(demo):
    effort, every = demo
    pare = next(each for each in every if each.key == "pare")
    scores = {TEACHER: scored(TEACHER, **SEEN)}
    scores[pare.evaluation(0)] = scored("pare", **(SEEN | {"flow_error": 0.1 + NOISE, "psnr": 20.0, "ssim": 0.8}))
    found = Results(scores)
    text = tables.scores_table(every, found)
    assert text.count("\n| PARE |") == 1 and "| teacher | – | 100.0 |" in text
    assert "Not measured yet: width only" in text and "In part: PARE (1 of 3 trainings)" in text
    motion = tables.motion_table(every, found)
    assert "20.00" in motion and "random" not in motion
    costs = tables.cost_table(every, found, effort.cost, lambda each: 0)
    assert "49%" in costs and "Seconds are not measured yet" in costs
    told = tables.answers_text(every, found)
    assert told.count("Not measured") == len(QUESTIONS)
    lost = tables.losses_text(every, found)
    assert lost.startswith("| row | score | all prompts | ") and "still (10)" in lost and "**" not in lost
    assert len(lost.splitlines()) == 2 + 6, "every score of the one row, whether it changed or not"
    worse = scored("pare", **(SEEN | {"digit": np.zeros(40)}))
    assert "**−100.0 [−100.0, −100.0]**" in tables.losses_text(every, Results(scores | {pare.evaluation(0): worse}))
    assert tables.bars_text(every, Results({TEACHER: scores[TEACHER]})) == NOT_YET


def test_the_page_is_filled_between_its_marks(tmp_path):
    path = tmp_path / "results.md"
    path.write_text(PAGE.read_text())
    before = path.read_text()
    write_page({"scores": "| numbers \\1 |"}, path)
    after = path.read_text()
    assert "<!-- scores -->\n| numbers \\1 |\n<!-- /scores -->" in after
    assert all(f"<!-- {name} -->" in after for name in BLOCKS)
    write_page({"scores": page_block(before, "scores")}, path)
    assert path.read_text() == before
    path.write_text("no marks")
    with pytest.raises(InputError, match="0 places for scores"):
        write_page({"scores": "x"}, path)
    assert path.read_text() == "no marks"
    with pytest.raises(InputError, match="page"):
        write_page({}, tmp_path / "other.md")


def page_block(text, name):
    return text.split(f"<!-- {name} -->\n")[1].split(f"\n<!-- /{name} -->")[0]


def test_time_left_follows_how_long_the_done_jobs_took():
    now = iter([0.0, 5.0, 5.0])
    report = progress.TableReport(["a", "b", "c"], [10.0, 10.0, 20.0], io.StringIO(), clock=lambda: next(now))
    report.begin(0)
    report.end(0)
    report.begin(1)
    assert report.left(1, 0.5) == pytest.approx(0.5 * (5 + 20))
