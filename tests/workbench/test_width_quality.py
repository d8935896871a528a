"""The quality of a cut is measured cut by cut, resumably; the teacher comes back whole after every student."""

import json

import pytest

from pare.errors import Cancelled, InputError
from pare.models import load_pipeline
from tests.tiny import save, tiny_pipeline
from workbench.commands.capture import capture
from workbench.demo.width_quality import CHOICES, COLUMNS, MENDED, Cut, all_cuts, measure, render

CUTS = [
    Cut(),
    Cut("magnitude", 0.5),
    Cut("PARE, α = 1.5", 0.5),
    Cut("PARE, α = 1.5", 0.0),
    Cut("PARE, α = 1.5, compensated", 0.5),
]
CAPTIONS = "a red 7 moving up and left, fast\na blue 3 standing still\n"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("width")
    model = str(save(tiny_pipeline(), folder / "tiny", height=48, width=48, frames=9, steps=2))
    capture(model, out=folder / "run", prompts=["a red 7"], samples=1, frames=5, steps=2, statistics="basic,moments")
    (folder / "prompts.txt").write_text(CAPTIONS)
    pipe = load_pipeline(model)
    return {"model": model, "run": folder / "run", "prompts": folder / "prompts.txt", "load": lambda *a, **o: pipe}


def measured(given, out, **changed):
    asked = {"cuts": CUTS, **given, **changed}
    return measure(asked.pop("model"), out, **asked)


def test_every_cut_has_a_row_and_more_prompts_go_on(given, tmp_path):
    first = measured(given, tmp_path / "width.json", count=1)
    assert [row["n"] for row in first["table"]] == [1] * len(CUTS)
    result = measured(given, tmp_path / "width.json")
    teacher, magnitude, pare, nothing, mended = result["table"]
    assert [row["n"] for row in result["table"]] == [2] * len(CUTS)
    assert 0 < magnitude["share"] == pare["share"] < teacher["share"] == nothing["share"] == 1
    # Nothing cut is the teacher's video; half cut is not.
    assert nothing["flow_magnitude"]["difference"] == 0 and nothing["psnr"]["mean"] == pytest.approx(100)
    assert pare["psnr"]["mean"] < 60 and pare["psnr"]["mean"] != magnitude["psnr"]["mean"]
    assert mended["psnr"]["mean"] != pare["psnr"]["mean"]
    fewer = measured(given, tmp_path / "width.json", cuts=CUTS[:2], count=1)
    assert [row["n"] for row in fewer["table"]] == [1, 1] and json.dumps(fewer["table"]) == json.dumps(
        first["table"][:2]
    )
    assert len(render(result["table"], COLUMNS).splitlines()) == 2 + len(CUTS)
    whole = measured(given, tmp_path / "again.json")
    for one, other in zip(result["table"], whole["table"], strict=True):
        untimed = [name for name in one if "seconds" not in name]
        assert json.dumps([one[name] for name in untimed]) == json.dumps([other[name] for name in untimed])


def test_a_stopped_measurement_goes_on_and_another_is_refused(given, tmp_path):
    def stop(done, total, message=""):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        measured(given, tmp_path / "width.json", count=1, progress=stop)
    kept = (tmp_path / "width.jsonl").read_text()
    assert not (tmp_path / "width.json").exists() and len(kept.splitlines()) == 3
    with pytest.raises(InputError, match="another model"):
        measured(given, tmp_path / "width.json", guidance=1.5)
    measured(given, tmp_path / "width.json", count=1)
    assert (tmp_path / "width.jsonl").read_text().startswith(kept)


def test_all_cuts_are_named_apart():
    names = [cut.name for cut in all_cuts()]
    assert len(set(names)) == len(names) == 1 + 2 * (len(CHOICES) + len(MENDED)) and names[0] == "teacher"
