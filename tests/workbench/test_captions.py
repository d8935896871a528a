"""Videos and what is said of them, from tables and from files beside them."""

import pytest

from pare.errors import InputError
from workbench.captions import read_captions


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a.mov"):
        (tmp_path / name).write_bytes(b"video")
    return tmp_path


def test_a_text_beside_every_video(folder):
    (folder / "a.txt").write_text("a red 7\n")
    with pytest.raises(InputError, match=r"b\.mp4 without a caption"):
        read_captions(folder)
    (folder / "b.txt").write_text("a blue 3")
    assert [(video.name, caption) for video, caption in read_captions(folder)] == [
        ("a.mov", "a red 7"),
        ("b.mp4", "a blue 3"),
    ]


@pytest.mark.parametrize(
    "name, content",
    [
        ("captions.csv", 'file,caption\nb.mp4,"a blue 3, slow"\na.mov,a red 7\n'),
        ("captions.jsonl", '{"video": "b.mp4", "text": "a blue 3, slow"}\n\n{"video": "a.mov", "prompt": "a red 7"}\n'),
    ],
)
def test_a_table_gives_the_order(folder, name, content):
    (folder / name).write_text(content)
    assert [(video.name, caption) for video, caption in read_captions(folder)] == [
        ("b.mp4", "a blue 3, slow"),
        ("a.mov", "a red 7"),
    ]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("captions.csv", "clip,caption\nb.mp4,x\n", "row 1"),
        ("captions.csv", "file,caption\nc.mp4,x\n", "no such file"),
        ("captions.csv", "file,caption\n", "no rows"),
        ("captions.jsonl", "[1]\n", "line 1"),
        ("captions.jsonl", "{\n", "no JSON"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_captions(folder)


def test_a_folder_without_videos_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="--videos"):
            read_captions(path)
