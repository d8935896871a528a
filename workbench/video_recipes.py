"""The Python and the command lines behind the player's strips, as text; the Python leaves `figure` and `table`."""

from collections.abc import Mapping
from pathlib import Path

from workbench.pages.text import command_line, short_path


def lines_by_frame(paths: Mapping[str, Path], *, paired: bool) -> str:
    """What every video frame measures, label → file."""
    named = [f"    {label!r}: {short_path(path)!r}," for label, path in paths.items()]
    return "\n".join(
        [
            "from analysis.figures.videos import lines_by_frame",
            "from analysis.metrics.by_frame import measure_frames",
            "from pare.video import read_video",
            "",
            "paths = {",
            *named,
            "}",
            "videos = {label: read_video(path)[0] for label, path in paths.items()}",
            f"table = measure_frames(videos, paired={paired})",
            "figure = lines_by_frame(table)",
            "figure.show()",
            "",
        ]
    )


def compare_commands(paths: Mapping[str, Path]) -> str | None:
    """The command lines that compare every other video with the first, one a line; None for a single one.

    >>> compare_commands({"dense": Path("a.mp4"), "routed": Path("b.mp4")})
    'pare compare a.mp4 b.mp4'
    """
    first, *others = (short_path(path) for path in paths.values())
    return "\n".join(command_line("compare", first, other) for other in others) or None
