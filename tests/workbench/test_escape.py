"""Ways out of the workspace, data/ and the folders named at start: by a link, a widget, a file's own words, or a job."""

import base64
import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save as to_safetensors
from starlette.applications import Starlette
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from analysis.runs import Run
from pare import mask as masks
from pare.errors import InputError
from pare.files import lies_inside
from pare.mask import PARTS, Mask
from pare.video import write_video
from tests.runs_fixture import make_run
from tests.training_files import make_samples, make_student, make_training
from tests.workbench.test_compare_page import identity, kept, write_evaluation
from workbench import head_sets
from workbench.captions import read_captions
from workbench.cli import main
from workbench.commands.report import report
from workbench.jobs.api import Jobs, open_workspace
from workbench.jobs.spec import prepare
from workbench.pages.student_folder import student_buttons
from workbench.pages.train import check_videos
from workbench.pages.train_work import training_name
from workbench.pages.videos import described
from workbench.places import PROJECT, Places
from workbench.report.sources import kind_of
from workbench.server import CONFIG, middleware, routes
from workbench.training_record import Training
from workbench.video_sets import open_videos

SECRET = "private-words-7f3a"
PAGES = ("heads", "blocks", "prune", "route", "train", "compare", "evidence", "runs", "jobs", "doctor")
NAMES = ("run", "with", "a", "b", "training", "set")
"""Names of a link that stand for something on disk."""
ESCAPES = {
    "parent": "workspace/../secret",
    "deep": "captures/../../../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "double": "captures//etc/passwd",
    "link": "captures/way-out",
    "backslash": "captures\\..\\secret",
    "nul": "captures/good\0/../../secret",
    "long": "captures/" + "a" * 5000,
    "deep folder": "captures" + "/a" * 3000,
    "percent": "captures/%2e%2e/secret",
    "surrogate": "captures/\udcff",
    "markup": "captures/<img src=x onerror=alert(1)>",
}


def film(path: Path, brightness: int = 200) -> Path:
    """A video that nobody may see."""
    frames = np.full((4, 32, 32, 3), brightness, np.uint8)
    write_video(frames, path, 8, {"prompt": SECRET, "seed": 1, "model": identity("x"), "settings": {"seed": 1}})
    return path


@pytest.fixture
def outside(tmp_path) -> Path:
    """What lies beside the places: a run, a mask, a student's card, a video."""
    folder = tmp_path / "secret"
    make_run(folder / "run", 3, 4, steps=2, samples=2)
    masks.save(kept(3, (3, 4)), folder / "mask.safetensors")
    film(folder / "v.mp4")
    (folder / "README.md").write_text(SECRET)
    (folder / "passwd").write_text(f"{SECRET},caption\nx,y\n")
    return folder


@pytest.fixture
def captures(tmp_path, outside) -> Path:
    """A folder named at start, with a good run and links that lead out."""
    folder = tmp_path / "captures"
    make_run(folder / "good", 3, 4, steps=2, samples=2)
    (folder / "way-out").symlink_to(outside)
    (folder / "run-out").symlink_to(outside / "run")
    (folder / "mask-out.safetensors").symlink_to(outside / "mask.safetensors")
    return folder


@pytest.fixture
def places(tmp_path, captures) -> Places:
    return Places((tmp_path / "workspace").resolve(), (captures.resolve(),), (tmp_path / "data").resolve())


def seen(test: AppTest) -> str:
    """All that the page sends to the browser, unescaped."""
    return str(test.main).replace("\\", "") + str(test.sidebar).replace("\\", "")


@pytest.mark.parametrize("page", PAGES)
def test_no_link_of_a_page_leads_out(open_page, captures, page):
    for way in ("parent", "link", "nul"):
        test = open_page(f"workbench/pages/{page}.py", captures, **dict.fromkeys(NAMES, ESCAPES[way]))
        assert not test.exception and SECRET not in seen(test)
        kept_names = {name: test.query_params[name] for name in NAMES if name in test.query_params}
        # Which trainings there are is known on their page alone, which shows the newest for one that is none.
        assert not kept_names.keys() - {"run", "training"}
        assert all("\n" not in each.value and len(each.value) < 400 for each in [*test.warning, *test.error])


@pytest.mark.parametrize("way", ESCAPES)
@pytest.mark.parametrize("end", ["", "/run", "/v.mp4", "/run.json"])
def test_no_name_finds_what_is_outside(places, way, end):
    with pytest.raises(InputError) as caught:
        places.find(ESCAPES[way] + end)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert ESCAPES[way] + end not in places


def test_links_that_lead_out_are_not_listed(places):
    listed = [*places.runs(), *places.masks(), *places.videos(), *places.pipelines(), *places.trainings()]
    assert listed == ["captures/good"]


@pytest.mark.parametrize("way", ESCAPES)
def test_the_video_route_serves_nothing_outside(places, way):
    client = TestClient(Starlette(routes=routes(places), middleware=middleware()), base_url="http://localhost")
    for end in ("", "/v.mp4", ".mp4"):
        path = (ESCAPES[way] + end).encode("utf-8", "surrogateescape")
        quoted = "".join(chr(byte) if chr(byte).isalnum() else f"%{byte:02x}" for byte in path)
        answer = client.get(f"/api/video/{quoted}")
        assert answer.status_code in (404, 414) and b"secret" not in answer.content


@pytest.mark.parametrize("video", ["../../secret/v.mp4", "{outside}/v.mp4", "videos/link.mp4", "videos/\0.mp4"])
def test_a_run_shows_no_video_that_its_file_names_elsewhere(captures, outside, video, tmp_path):
    run = captures / "good"
    (run / "videos").mkdir()
    (run / "videos" / "link.mp4").symlink_to(outside / "v.mp4")
    own = film(run / "videos" / "own.mp4", 10)
    about = json.loads((run / "run.json").read_text())
    about["samples"][0]["video"] = video.format(outside=outside)
    about["samples"][1]["video"] = "videos/own.mp4"
    (run / "run.json").write_text(json.dumps(about))
    opened = Run.open(run)
    assert opened.videos == {1: own}
    assert open_videos(run).table["path"].tolist() == [str(own)]


def test_sets_of_videos_trainings_and_students_show_no_links_that_lead_out(tmp_path, outside, places):
    folder = tmp_path / "captures"
    write_evaluation(folder / "e", 0.0, identity("x"))
    (folder / "e" / "videos" / "00000.mp4").unlink()
    (folder / "e" / "videos" / "00000.mp4").symlink_to(outside / "v.mp4")
    assert [not isinstance(path, str) for path in open_videos(folder / "e").table["path"]] == [True, False, False]
    film(folder / "loose" / "own.mp4", 20)
    (folder / "loose" / "link.mp4").symlink_to(outside / "v.mp4")
    assert open_videos(folder / "loose").table["path"].tolist() == [str(folder / "loose" / "own.mp4")]
    training = make_training(folder / "t", validated=(20,), student=True)
    for name in ("000020-0.mp4", "teacher-1.mp4"):
        (training / "clips" / name).unlink()
        (training / "clips" / name).symlink_to(outside / "v.mp4")
    opened = Training.open(training)
    assert list(opened.clips[20]) == [1] and opened.teacher_clip(1) is None and opened.teacher_clip(0) is not None
    report(folder / "t", out=tmp_path / "r.html")
    told = (tmp_path / "r.html").read_text()
    assert base64.b64encode((outside / "v.mp4").read_bytes()).decode()[:200] not in told
    (folder / "t" / "README.md").symlink_to(outside / "README.md")

    def page(path: str) -> None:
        from pathlib import Path

        from workbench.pages.student_folder import student_buttons

        student_buttons(Path(path), key="x")

    assert student_buttons and not AppTest.from_function(page, args=(str(folder / "t"),)).run().get("download_button")


def test_the_player_shows_nothing_outside(places, outside, captures, monkeypatch):
    own = film(captures / "own.mp4", 30)
    for served in (True, False):
        monkeypatch.setenv("PARE_ROUTES", "1") if served else monkeypatch.delenv("PARE_ROUTES", raising=False)
        assert described(places, own, "own").frames == 4
        for path in (outside / "v.mp4", captures / "way-out" / "v.mp4", captures / ".." / "secret" / "v.mp4"):
            with pytest.raises(InputError, match="lies elsewhere"):
                described(places, path, "theirs")


# Jobs


@pytest.mark.parametrize("out", ["../../x", "/etc/x", "link/x", "a/../../../x", "x\0y", "a" * 5000])
def test_no_job_writes_outside(tmp_path, outside, out):
    jobs = open_workspace(tmp_path / "workspace")
    (tmp_path / "workspace" / "link").symlink_to(outside)
    before = sorted(path for path in outside.rglob("*"))
    artefacts = tmp_path / "workspace" / "jobs" / "a" / "artefacts"
    artefacts.mkdir(parents=True)
    (artefacts / "link").symlink_to(outside)
    try:
        given = prepare(
            "generate",
            {"model": "demo", "prompt": "x", "out": out},
            "cpu",
            root=tmp_path / "workspace",
            artefacts=artefacts,
        )
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
    else:
        assert lies_inside(given["out"], artefacts)
    if out != "link/x":
        try:
            job = jobs.submit("generate", {"model": "demo", "prompt": "x", "out": out}, device="cpu", start=False)
        except InputError:
            assert not jobs.list()
        else:
            assert lies_inside(jobs.status(job).arguments["out"], jobs.folder(job) / "artefacts")
    assert sorted(path for path in outside.rglob("*")) == before


def test_a_job_whose_row_names_a_place_outside_shows_nothing_of_it(open_page, tmp_path, outside):
    jobs = open_workspace(tmp_path / "workspace")
    make_training(outside / "student", validated=(20,))
    for number, (command, out) in enumerate(
        [
            ("distill", f"{tmp_path}/workspace/../secret/student"),
            ("distill", str(outside / "student")),
            ("capture", str(outside / "run")),
        ]
    ):
        arguments = {"stage": "width", "model": "demo", "data": SECRET, "out": "student"}
        job = jobs.submit("distill", arguments, device="cpu", start=False, name=f"job{number}")
        _rewrite(jobs, job, command=command, arguments=json.dumps({**arguments, "data": "d", "out": out}))
    assert not [
        job for job in jobs.list() if training_name(Places((tmp_path / "workspace").resolve()), job) is not None
    ]
    for page in ("jobs", "train"):
        test = open_page(f"workbench/pages/{page}.py", None)
        assert not test.exception and SECRET not in seen(test)
        assert not [each for each in test.button if str(each.key).startswith("open-") and "open" in each.label.lower()]


def _rewrite(jobs: Jobs, job: str, **columns: str) -> None:
    import sqlite3

    with sqlite3.connect(jobs.root / "jobs.sqlite3") as db:
        for name, value in columns.items():
            db.execute(f"UPDATE job SET {name} = ? WHERE id = ?", (value, job))


def test_captions_name_no_video_outside(tmp_path, outside, captures, places):
    folder = captures / "films"
    film(folder / "a.mp4")
    for file in ("../../secret/v.mp4", str(outside / "v.mp4"), "a\0.mp4"):
        with (folder / "captions.csv").open("w", newline="") as table:
            csv.writer(table).writerows([["file", "caption"], ["a.mp4", "one"], [file, "two"]])
        with pytest.raises(InputError, match="leaves the folder"):
            read_captions(folder)
    (folder / "captions.csv").write_text("file,caption\na.mp4,one\n")
    check_videos(places, str(folder))
    (folder / "link.mp4").symlink_to(outside / "v.mp4")
    (folder / "captions.csv").write_text("file,caption\nlink.mp4,one\n")
    with pytest.raises(InputError, match="lies elsewhere"):
        check_videos(places, str(folder))
    (folder / "captions.csv").unlink()
    (folder / "captions.csv").symlink_to(outside / "passwd")
    with pytest.raises(InputError, match="lies elsewhere") as caught:
        check_videos(places, str(folder))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("way", ["parent", "absolute", "link", "nul", "long"])
def test_the_folder_of_videos_on_the_train_page_stays_inside(open_page, captures, way, tmp_path):
    make_samples(captures / "samples")
    make_student(captures / "pruned")
    test = open_page("workbench/pages/train.py", captures)
    bad = test.text_input(key="train_videos").set_value(ESCAPES[way]).run()
    assert not bad.exception and "inside the workspace" in bad.error[0].value.replace("\\", "")
    assert not (tmp_path / "workspace" / "jobs.sqlite3").exists()


def test_sets_of_heads_are_kept_and_read_below_the_workspace_alone(tmp_path, outside, captures):
    run, workspace = Run.open(captures / "good"), tmp_path / "workspace"
    members = np.zeros((3, 4), bool)
    members[0, 0] = True
    found = head_sets.of_run(run, "mine", members, {})
    workspace.mkdir(exist_ok=True)
    (workspace / head_sets.FOLDER).symlink_to(outside)
    with pytest.raises(InputError, match="leads elsewhere"):
        head_sets.save(workspace, found)
    assert not (outside / "mine.json").exists()
    (workspace / head_sets.FOLDER).unlink()
    head_sets.save(workspace, found)
    (workspace / head_sets.FOLDER / "theirs.json").symlink_to(outside / "README.md")
    with pytest.raises(InputError, match="leads elsewhere") as caught:
        head_sets.load(workspace, "theirs")
    assert SECRET not in str(caught.value)
    for name in ("../mine", "a/b", "mine\0", "x" * 300, ""):
        with pytest.raises(InputError):
            head_sets.load(workspace, name)
    assert head_sets.slug("../../etc/passwd") == "etc-passwd"


# Files that lie


def lying(header: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    """A safetensors file whose first eight bytes say `length`."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


LIES = {
    "empty": b"",
    "no header": lying(b"", 0),
    "header longer than the file": lying(b'{"self_heads":{}}', 10**6),
    "header of exabytes": lying(b"{}", 2**63),
    "offsets beyond the file": lying(
        json.dumps({part: {"dtype": "BOOL", "shape": [4, 4], "data_offsets": [0, 10**12]} for part in PARTS}).encode()
    ),
    "shape of another size": lying(
        json.dumps(
            {part: {"dtype": "BOOL", "shape": [10**9, 10**9], "data_offsets": [0, 1]} for part in PARTS}
        ).encode(),
        body=b"\1",
    ),
    "overlapping tensors": lying(
        json.dumps({part: {"dtype": "BOOL", "shape": [1, 1], "data_offsets": [0, 1]} for part in PARTS}).encode(),
        body=b"\1",
    ),
    "numbers for booleans": to_safetensors({part: np.full((3, 4), 7.5, np.float32) for part in PARTS}),
    "one axis": to_safetensors({part: np.ones(4, bool) for part in PARTS}),
    "metadata without end": to_safetensors({part: np.ones((3, 4), bool) for part in PARTS}, {"pare": "[" * 200_000}),
    "metadata of another kind": to_safetensors({part: np.ones((3, 4), bool) for part in PARTS}, {"pare": "[1]"}),
    "settings that are none": to_safetensors(
        {part: np.ones((3, 4), bool) for part in PARTS}, {"pare": json.dumps({"schema": "pare-mask/1", "settings": 3})}
    ),
    "a pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_mask_that_lies_is_one_line(lie, tmp_path, captures, capsys):
    path = tmp_path / "lie.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(InputError) as caught:
        masks.check(masks.load(path), Run.open(captures / "good").geometry, Run.open(captures / "good").manifest.model)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600 and all(part in line for part in ("got ", "; expected ", "; fix: "))
    assert main(["mask", "check", str(path), str(captures / "good")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_mask_of_another_model_is_refused_by_both_names(captures, tmp_path):
    run = Run.open(captures / "good")
    keep = np.ones((3, 4), bool)
    about = {"model": {"model_id": "somebody/else", "config_hash": "1" * 16}}
    mask = Mask(keep, keep, np.ones((3, run.geometry.ffn), bool), about)
    with pytest.raises(InputError, match="somebody/else") as caught:
        masks.check(mask, run.geometry, run.manifest.model)
    assert run.model_id in str(caught.value)


@pytest.mark.parametrize(
    ("file", "page"),
    [
        ("run.json", "runs"),
        ("evidence.json", "evidence"),
        ("training.json", "train"),
        ("evaluation.json", "compare"),
        ("model_index.json", "prune"),
    ],
)
def test_json_without_end_is_no_crash(open_page, captures, file, page, tmp_path):
    folder = captures / "endless"
    folder.mkdir()
    (folder / file).write_text('{"a":' * 100_000)
    test = open_page(f"workbench/pages/{page}.py", captures, run="captures/good")
    assert not test.exception and not [each for each in test.error if "expected no failure" in each.value]
    with pytest.raises(InputError):
        kind = kind_of([folder])
        report(folder, out=tmp_path / "r.html", kind=kind)


# Uploads and secrets


def test_uploads_are_capped_and_need_a_session():
    assert CONFIG["server.maxUploadSize"] <= 64
    assert CONFIG["server.address"] == "127.0.0.1" and not CONFIG["browser.gatherUsageStats"]
    assert CONFIG["server.enableXsrfProtection"] is True and CONFIG["server.enableCORS"] is True
    # No page takes a file: what a person has is named at start.
    for path in (PROJECT / "workbench" / "pages").glob("*.py"):
        assert "file_uploader" not in path.read_text(), f"{path.name} takes a file: check and cap it here"


TOKEN = "hf_" + "Zq3vX81mTestOnly0"


def test_no_secret_in_a_job_a_report_or_a_page(open_page, captures, tmp_path, monkeypatch, capsys):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, TOKEN)
    jobs = open_workspace(tmp_path / "workspace")
    job = jobs.submit("generate", {"model": "demo", "prompt": "a red 7", "out": "v.mp4"}, device="cpu", start=False)
    (jobs.folder(job)).mkdir(parents=True, exist_ok=True)
    (jobs.folder(job) / "log.txt").write_text(f"GET https://hub?token={TOKEN}\nAuthorization: Bearer {TOKEN}\n")
    assert TOKEN not in jobs.log(job, 10) and "hf_***" in jobs.log(job, 10)
    report(captures / "good", out=tmp_path / "out" / "r.html")
    main(["doctor", "--json", "--workspace", str(tmp_path / "workspace")])
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    for page in ("jobs", "doctor", "heads"):
        test = open_page(f"workbench/pages/{page}.py", captures)
        if page == "jobs":
            test.toggle(key=f"log-{job}").set_value(True).run()
        assert not test.exception and TOKEN not in seen(test) and TOKEN not in str(test.query_params)
    for folder in (tmp_path / "workspace", tmp_path / "out"):
        for path in folder.rglob("*"):
            if path.is_file() and path.name != "log.txt":
                assert TOKEN.encode() not in path.read_bytes(), path
    assert os.environ["HF_TOKEN"] == TOKEN
