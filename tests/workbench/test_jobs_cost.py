"""What a job was expected to cost: from its button, else from jobs like it; kept beside it, held against what it took."""

import doctest

import pytest

from workbench.jobs import device, history
from workbench.jobs.api import Cost, open_workspace
from workbench.jobs.history import MOST, expected_cost
from workbench.jobs.job import Job, State
from workbench.pages import job_view


@pytest.mark.parametrize("module", [history, job_view, device])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def job(seconds, attempt=1, device="cpu", **arguments):
    return Job("a", "generate", arguments, device, State.DONE, attempt=attempt, started=100.0, finished=100.0 + seconds)


def test_only_first_attempts_of_the_same_work_on_the_same_device_count():
    same = {"model": "demo", "steps": 4}
    finished = [job(2.0, **same, seed=1), job(4.0, **same, prompt="b"), job(50.0, model="demo", steps=8)]
    finished += [job(60.0, attempt=2, **same), job(70.0, device="cuda:0", **same)]
    found = expected_cost(finished, {**same, "seed": 9, "out": "x"}, "cpu")
    assert (found.seconds, found.source) == (3.0, "as 2 jobs like it took")
    assert expected_cost(finished, {"model": "other"}, "cpu") is None
    # The newest come first.
    assert expected_cost([job(1.0)] * MOST + [job(100.0)], {}, "cpu").seconds == 1.0


def test_a_job_keeps_what_it_was_expected_to_cost(tmp_path):
    jobs = open_workspace(tmp_path)
    given = {"model": "demo", "prompt": "a", "out": "v.mp4"}
    told = jobs.submit("generate", given, start=False, cost=Cost(seconds=5.0, memory=2**30, source="from a probe"))
    assert jobs.expected(told) == Cost(seconds=5.0, memory=2**30, source="from a probe")
    assert jobs.expected(jobs.submit("generate", given, start=False)) is None
    path = jobs.folder(told) / "cost.json"
    for text in ("{", "[]", '{"seconds": "long"}', '{"colour": 1}'):
        path.write_text(text)
        assert jobs.expected(told) is None
