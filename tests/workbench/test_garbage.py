"""After every run of a page the collector goes through what the page made, not through the modules."""

import gc
import sys
from types import ModuleType

from workbench.pages.garbage import spare_modules


def test_what_modules_hold_is_spared_once_and_again_when_more_are_loaded(monkeypatch):
    spare_modules()
    spared = gc.get_freeze_count()
    assert spared > 50_000
    kept = [[] for _ in range(1000)]
    spare_modules()
    assert gc.get_freeze_count() <= spared, "nothing was loaded"
    monkeypatch.setitem(sys.modules, "loaded_later", ModuleType("loaded_later"))
    spare_modules()
    assert gc.get_freeze_count() > spared + len(kept) / 2


def test_garbage_of_a_run_is_still_collected():
    spare_modules()

    class Node:
        other: "Node"

    one, two = Node(), Node()
    one.other, two.other = two, one
    del one, two
    assert gc.collect() >= 2
