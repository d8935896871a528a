"""The build's progress lines."""

import io

from workbench.demo.report import StageReport


def test_the_rate_is_of_this_attempt_alone(monkeypatch):
    clock = iter([0.0, 0.0, 10.0])
    monkeypatch.setattr("workbench.demo.report.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    report = StageReport("transformer", stream, every_seconds=5)
    report(1001, 2000)
    report(1011, 2000, "loss 0.3")
    assert stream.getvalue() == "transformer 1011/2000, 1.00 s each, 16 min left: loss 0.3\n"


def test_the_last_unit_is_always_reported():
    stream = io.StringIO()
    report = StageReport("latents", stream, every_seconds=3600)
    report(1, 2)
    report(2, 2)
    assert stream.getvalue().startswith("latents 2/2")
