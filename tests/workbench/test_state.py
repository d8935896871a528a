"""The one selection: round trip through a link; bad values fall back and say so; the session leads afterwards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.state import COMPARED, SESSION_KEY, Facts, Selection, current, from_query, requested_run, update

RUNS, FILES = ("data/runs/demo", "workspace/b"), ("workspace/m.safetensors", "data/demo")
FACTS = Facts("data/runs/demo", 8, 10, steps=10, samples=4, branches=("cond", "uncond"), runs=RUNS, files=FILES)


class Link(dict):
    """A query string that counts how often it is written: a browser has one entry of history for each."""

    writes = 0

    def from_dict(self, params):
        self.clear()
        super().update(params)
        self.writes += 1


def optional(strategy):
    return st.none() | strategy


@st.composite
def selections(draw):
    pinned = draw(optional(st.tuples(st.integers(0, 7), optional(st.integers(0, 9)))))
    steps = draw(optional(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)))
    thresholds = st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True)
    low, high = sorted(value / 1000 for value in draw(thresholds))
    budget = draw(st.tuples(st.integers(1, 8), st.integers(1, 8)).map(sorted))
    target = draw(optional(st.tuples(st.sampled_from(["parameters", "flops", "gib"]), st.sampled_from([0.015, 2.5e9]))))
    return Selection(
        run=FACTS.run,
        block=pinned and pinned[0],
        head=pinned and pinned[1],
        first_step=steps and steps[0],
        last_step=steps and steps[1],
        lens=draw(st.sampled_from(["residual", "ffn", "cosine"])),
        branch=draw(optional(st.sampled_from(FACTS.branches))),
        sample=draw(optional(st.integers(0, 3))),
        tau_s=high,
        tau_t=low,
        alpha=draw(st.sampled_from([1.0, 1.5, 2.25])),
        ratio=draw(st.sampled_from([0.1, 0.3, 0.55])),
        k_min=budget[0],
        k_max=budget[1],
        video_frame=draw(st.integers(0, 80)),
        scorer=draw(st.sampled_from(["pare", "random"])),
        allocation=draw(st.sampled_from(["uniform", "global-l2"])),
        neurons=draw(st.sampled_from(["pare", "none"])),
        target=target and target[0],
        target_value=target and target[1],
        versus=draw(optional(st.integers(0, 3))),
        compared=draw(optional(st.sampled_from(RUNS))),
        kind=draw(st.sampled_from(COMPARED)),
        left=draw(optional(st.sampled_from(FILES))),
        right=draw(optional(st.sampled_from(FILES))),
        pair=draw(optional(st.integers(0, 30))),
        edits=tuple(sorted(draw(st.sets(st.tuples(st.integers(0, 9), st.integers(1, 6)), max_size=5)))),
    )


@given(selections())
def test_a_link_round_trips(selection):
    assert from_query(selection.to_query(), FACTS) == (selection, [])


def test_defaults_are_left_out_of_the_link():
    assert Selection().to_query() == {}
    assert Selection(run="data/runs/demo", ratio=0.4).to_query() == {"run": "data/runs/demo", "p": "0.4"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run", "../../etc"),
        ("block", "8"),
        ("block", "-1"),
        ("block", "²"),
        ("head", "1e3"),
        ("steps", "7-3"),
        ("vf", "-1"),
        ("vf", "10000"),
        ("scorer", "scores.csv#effect"),
        ("alloc", "even"),
        ("neurons", "all"),
        ("target", "gib"),
        ("target", "gib:-1"),
        ("target", "hours:3"),
        ("steps", "0-10"),
        ("steps", ""),
        ("branch", "both"),
        ("lens", "none"),
        ("sample", "4"),
        ("ts", "nan"),
        ("ts", "1.2"),
        ("tt", "inf"),
        ("tt", "low"),
        ("alpha", "0.5"),
        ("p", "0"),
        ("p", "1"),
        ("p", "1.5"),
        ("kmin", "0"),
        ("kmax", "9"),
        ("kmax", "9" * 5000),
        ("vs", "4"),
        ("with", "workspace/gone"),
        ("with", "../../etc"),
        ("kind", "prompts"),
        ("a", "/etc/passwd"),
        ("b", "workspace/gone"),
        ("pair", "-1"),
        ("flip", ""),
        ("flip", "0"),
        ("flip", "0.0"),
        ("flip", "3.7"),
        ("flip", "10.3"),
        ("flip", "1.2.3"),
        ("flip", "1.2-1.2"),
        ("flip", "1.2-01.2-1.02"),
    ],
)
def test_a_bad_value_falls_back_in_one_line(name, text):
    selection, notes = from_query({name: text}, FACTS)
    assert selection == Selection(run=FACTS.run)
    assert len(notes) == 1 and notes[0].startswith(f"{name}=") and "expected" in notes[0]
    assert "\n" not in notes[0] and len(notes[0]) < 200


def test_values_that_only_fit_together():
    assert from_query({"ts": "0.2", "tt": "0.6"}, FACTS)[0] == Selection(run=FACTS.run)
    assert from_query({"kmin": "7", "kmax": "3"}, FACTS)[0] == Selection(run=FACTS.run)
    for query in ({"ts": "0.2", "tt": "0.6"}, {"kmin": "7", "kmax": "3"}, {"head": "3"}):
        assert len(from_query(query, FACTS)[1]) == 1


def test_equal_thresholds_are_one_line_between_spatial_and_temporal_as_on_the_command_line():
    from analysis.roles import check_thresholds

    check_thresholds(0.5, 0.5)
    assert from_query({"ts": "0.5", "tt": "0.5"}, FACTS) == (Selection(run=FACTS.run, tau_s=0.5, tau_t=0.5), [])


def test_a_block_may_be_chosen_alone():
    assert from_query({"block": "3"}, FACTS) == (Selection(run=FACTS.run, block=3), [])


NAMES = st.text(max_size=8) | st.sampled_from(["block", "ts", "p", "steps", "run"])


@given(st.dictionaries(NAMES, st.text(max_size=12)))
def test_no_link_breaks_the_page(query):
    selection, notes = from_query(query, FACTS)
    assert from_query(selection.to_query(), FACTS) == (selection, [])
    assert len(notes) <= len(query) + 1


def test_without_a_run_the_settings_survive_and_the_rest_says_why():
    selection, notes = from_query({"run": "gone", "block": "1", "head": "1", "p": "0.4"}, Facts())
    assert selection == Selection(ratio=0.4)
    assert any("no run is open" in note for note in notes)


def test_the_object_is_frozen():
    with pytest.raises(ValidationError):
        Selection().tau_s = 0.5  # type: ignore[misc]


def test_a_session_opens_with_its_link_and_leads_after_a_page_change():
    session, link = {}, Link({"block": "2", "head": "3"})
    first, _ = current(session, link, FACTS)
    assert (first.block, first.head) == (2, 3)
    assert link == {"run": "data/runs/demo", "block": "2", "head": "3"}
    link.clear()  # a page change drops the query string
    again, notes = current(session, link, FACTS)
    assert again == first and notes == [] and link["block"] == "2"
    assert requested_run(session, {}) == "data/runs/demo"


def test_an_edited_address_is_read_again_and_a_note_shows_once():
    session, link = {}, Link()
    current(session, link, FACTS)
    link["block"], link["head"] = "5", "44"
    selection, notes = current(session, link, FACTS)
    assert selection.block is None and len(notes) == 1
    assert current(session, link, FACTS) == (selection, [])


def test_what_one_action_changes_is_one_write_and_what_it_leaves_is_none():
    session, link = {}, Link()
    selection, _ = current(session, link, FACTS)
    assert link.writes == 1
    selection = selection.changed(block=2, head=3, tau_s=0.8, sample=1)
    update(session, link, selection)
    assert link.writes == 2 and link == selection.to_query()
    update(session, link, selection)
    current(session, link, FACTS)
    assert link.writes == 2
    update(session, link, Selection())
    assert link.writes == 3 and link == {}


def test_another_run_keeps_what_still_fits():
    session, link = {}, Link({"block": "7", "head": "9", "p": "0.4"})
    selection, _ = current(session, link, FACTS)
    update(session, link, selection.changed(run="small"))
    small = Facts(run="small", blocks=2, heads=2, steps=1, samples=1, branches=("cond",))
    selection, notes = current(session, link, small)
    assert (selection.run, selection.ratio, selection.block) == ("small", 0.4, None)
    assert len(notes) == 2 and session[SESSION_KEY] == link
