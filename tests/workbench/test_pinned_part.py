"""Pinning a head, or another view of them, draws the parts that show it, and nothing else; all other changes the whole page."""

import pytest
from streamlit.testing.v1 import AppTest

from tests.runs_fixture import make_run


def script() -> None:
    import streamlit as st

    from workbench.pages.pinned_part import begin_parts, choose_in, choose_pinned, pinned_part
    from workbench.pages.shell import open_shell

    shell = open_shell()
    st.session_state["whole"] = st.session_state.get("whole", 0) + 1
    begin_parts()

    def show(now) -> None:
        st.session_state["part"] = st.session_state.get("part", 0) + 1
        st.text(f"{now.block}.{now.head}")
        st.button("own", key="own")

    pinned_part("a", show)
    pinned_part("b", lambda now: st.text(f"also {now.block}.{now.head} at {now.tau_s}"))
    st.text(f"outside {shell.selection.block}")
    st.button("pin", on_click=choose_pinned, kwargs={"block": 1, "head": 2}, key="pin")
    st.button("view", on_click=choose_in, args=("b", "gone"), kwargs={"tau_s": 0.9}, key="view")
    st.button("both", on_click=choose_pinned, kwargs={"block": 0, "head": 1, "tau_s": 0.8}, key="both")


@pytest.fixture
def page(tmp_path, monkeypatch) -> AppTest:
    make_run(tmp_path / "workspace" / "run", 2, 3, steps=2, samples=2)
    monkeypatch.setenv("PARE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("PARE_FOLDERS", "")
    page = AppTest.from_function(script)
    page.query_params["run"] = "workspace/run"
    return page.run(timeout=60)


def said(page: AppTest) -> list[str]:
    return [each.value for each in page.text]


def test_a_pin_runs_the_parts_alone(page):
    assert said(page) == ["None.None", "also None.None at 0.7", "outside None"]
    page.button(key="pin").click().run()
    assert not page.exception
    assert page.session_state["whole"] == 1 and page.session_state["part"] == 2
    assert said(page) == ["1.2", "also 1.2 at 0.7"]
    assert (page.query_params["block"], page.query_params["head"]) == ("1", "2")


def test_another_change_beside_the_pin_runs_the_whole_page(page):
    page.button(key="both").click().run()
    assert page.session_state["whole"] == 2
    assert said(page) == ["0.1", "also 0.1 at 0.8", "outside 0"]


def test_a_change_in_one_part_runs_that_one_alone(page):
    page.button(key="view").click().run()
    assert page.session_state["whole"] == 1 and page.session_state["part"] == 1
    assert said(page) == ["also None.None at 0.9"] and page.query_params["ts"] == "0.9"
    # What was passed over is whole again with the next run of the page.
    page.run()
    assert page.session_state["whole"] == 2 and said(page) == ["None.None", "also None.None at 0.9", "outside None"]


def test_a_widget_of_a_part_runs_the_whole_page(page):
    page.button(key="pin").click().run()
    page.button(key="own").click().run()
    assert page.session_state["whole"] == 2 and said(page)[-1] == "outside 1"
