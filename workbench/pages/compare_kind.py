"""Which kind of comparison the page shows: the one that is asked for, else the first that has something to show."""

from collections.abc import Callable, Mapping

from analysis.runs import Run
from pare.errors import InputError
from workbench.pages import head_data
from workbench.pages.compare_choice import mask_names
from workbench.pages.compare_videos import set_names
from workbench.pages.data import default_run, open_run, pipeline_names, run_names
from workbench.places import Places
from workbench.state import Selection

RUNS = "runs"
TWO: Mapping[str, Callable[[Places], list[str]]] = {
    "students": pipeline_names,
    "videos": set_names,
    "masks": mask_names,
}
"""Kinds of which any two can be compared, in the order in which the page takes one by itself."""


def shown_kind(places: Places, selection: Selection) -> str:
    """The kind that the selection asks for; without one, runs where two of them fit, else the first kind with two."""
    if selection.kind is not None:
        return selection.kind
    names = run_names(places)
    name = selection.run or default_run(names)
    if name is None or selection.compared is not None:
        return RUNS
    try:
        run = open_run(places.find(name))
    except InputError:
        return RUNS
    if fitting(places, run, name, names):
        return RUNS
    return next((kind for kind, found in TWO.items() if len(found(places)) > 1), RUNS)


def fitting(places: Places, run: Run, name: str, names: list[str]) -> list[str]:
    """The other runs that can be subtracted from the open one, in their order."""
    return head_data.comparable(run, places, [each for each in names if each != name])
