"""Doctor: what this machine has, whether it is enough, and what to do about what is not; asked of `pare doctor`."""

from dataclasses import asdict
from typing import Any

import pandas as pd
import streamlit as st

from workbench import doctor_process
from workbench.components.copy_button.component import copy_button
from workbench.jobs.device import fastest_device
from workbench.jobs.job import State
from workbench.machine import Finding, as_text, from_json, verdict
from workbench.pages.chart import csv_button
from workbench.pages.generate_panel import models
from workbench.pages.job_view import job_buttons, show_progress
from workbench.pages.prune_work import find
from workbench.pages.shell import Shell, guard, jobs_of, open_shell
from workbench.pages.text import command_line, duration, plain, short_path
from workbench.places import Places
from workbench.plan import gibi, plan, tera
from workbench.settings import RunSettings

POLL_SECONDS = 0.5
LEVELS = {
    "ok": ":green-badge[:material/check_circle: ok]",
    "warn": ":orange-badge[:material/warning: warn]",
    "fail": ":red-badge[:material/error: fail]",
}


@st.cache_resource(max_entries=4, show_spinner=False)
def asked(workspace: str) -> doctor_process.Asked:
    """One doctor for all tabs, until it is asked again."""
    return doctor_process.ask(workspace)


def show_page(shell: Shell) -> None:
    workspace = str(shell.places.workspace)
    waiting = asked(workspace).answer() is None

    def watch() -> None:
        with guard("doctor"):
            found = asked(workspace).answer()
            if found is None:
                st.title("Asking this machine …", anchor=False)
                st.progress(0.0, text="torch is imported in a process of its own, which takes some seconds")
            elif waiting:
                st.rerun()
            else:
                _show(found, workspace)

    st.fragment(watch, run_every=POLL_SECONDS if waiting else None)()
    if not waiting:
        with guard("model"):
            _check_model(shell.places)


def _show(found: dict[str, Any], workspace: str) -> None:
    findings = [] if "error" in found else from_json(found.get("machine") or ())
    text, buttons = st.columns([3, 2], vertical_alignment="top")
    text.title(plain(verdict(findings)) if findings else "The doctor gave no answer", anchor=False)
    with buttons, st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Look again", key="doctor_again", icon=":material/refresh:"):
            asked.clear(workspace)
            st.rerun()
        if findings:
            copy_button("Copy as text", report(found, findings), key="copy_doctor")
            csv_button(lambda: pd.DataFrame([asdict(each) for each in findings]), name="doctor", key="doctor")
        copy_button("Copy link", None, key="copy_link")
    if not findings:
        st.error(plain(found.get("error") or "no findings in its answer"), icon=":material/error:")
        st.markdown("The same in a terminal, with the reason:")
        st.code("pare doctor --debug", language=None)
        return
    # What is broken stands first; the order within is the doctor's own.
    for each in sorted(findings, key=lambda one: tuple(reversed(LEVELS)).index(one.level)):
        show_finding(each)
    with st.expander("Versions"):
        st.code("\n".join(f"{name} {number}" for name, number in found.get("versions", {}).items()), language=None)


def show_finding(each: Finding) -> None:
    """One line: level as word, icon and colour, what was looked at, what was found, and what to do."""
    level, name, words = st.columns([1, 2, 9], vertical_alignment="top")
    level.markdown(LEVELS[each.level])
    name.markdown(f"**{plain(each.name)}**")
    words.markdown(plain(each.text) + (f"  \n**Fix** {plain(each.fix)}" if each.fix else ""))


def report(found: dict[str, Any], findings: list[Finding]) -> str:
    """All of it as text, for a report of a problem."""
    versions = ", ".join(f"{name} {number}" for name, number in found.get("versions", {}).items())
    return f"{as_text(findings)}\nversions    {versions}"


def _check_model(places: Places) -> None:
    """The checks of one model, as a job: it loads the model and runs it."""
    choices = models(places)
    st.header("Check a model on this machine", anchor=False)
    if not choices:
        st.markdown("No model to check. `make demo` builds the bundled one.")
        return
    picker, button = st.columns([3, 2], vertical_alignment="bottom")
    model = choices[picker.selectbox("Model", list(choices), key="doctor_model")]
    arguments = {"model": model, "workspace": str(places.workspace)}
    job = find(places, "doctor", arguments)
    busy = job is not None and job.active
    clicked = button.button("Load and check it", key="doctor_check", disabled=busy)
    st.caption(
        "Loads the model and runs some forwards: the same bits with capture on and off, no hook left, ratios against float64, "
        f"overhead. {plain(check_cost(places, model, arguments))}"
    )
    if clicked:
        jobs_of(places).submit("doctor", arguments)
        st.rerun()

    def watch() -> None:
        with guard("checks"):
            now = find(places, "doctor", arguments)
            if busy and (now is None or not now.active):
                st.rerun()
            if now is None:
                typed = (
                    model
                    if model == "demo"
                    else short_path(places.find(next(n for n, m in choices.items() if m == model)))
                )
                st.code(command_line("doctor", typed), language=None)
                return
            if now.state is not State.DONE:
                show_progress(now)
                job_buttons(jobs_of(places), now, removes=False)
                return
            for each in model_findings(dict(now.result or {})):
                show_finding(each)

    st.fragment(watch, run_every=POLL_SECONDS if busy else None)()


def check_cost(places: Places, model: str, arguments: dict[str, Any]) -> str:
    """What checking a model takes, in one line."""
    device = fastest_device()
    filled = RunSettings.of().filled(model, videos=True)
    need = gibi(plan(model, filled, device=device, forwards=1)["memory"]["total"])
    known = None
    if (places.workspace / "jobs.sqlite3").is_file():
        known = jobs_of(places).forecast("doctor", arguments, device)
    took = (
        "" if known is None or known.seconds is None else f", about {duration(max(1.0, known.seconds))} {known.source}"
    )
    return f"On {device}: up to {need} of memory{took}."


def model_findings(result: dict[str, Any]) -> list[Finding]:
    """The checks of a model as findings.

    >>> model_findings({"checks": [{"name": "hooks", "ok": True, "text": "none left"}]})
    [Finding(name='hooks', level='ok', text='none left', fix='')]
    """
    found = [
        Finding(
            str(each["name"]),
            "ok" if each["ok"] else "fail",
            str(each["text"]),
            "" if each["ok"] else f"docs/capture.md says what {each['name']} means",
        )
        for each in result.get("checks", ())
    ]
    if result.get("left_out"):
        found.append(Finding("not checked", "warn", f"the rest: {result['left_out']}", "see the reason"))
    if "need" in result:
        need = result["need"]
        words = f"{tera(need['flops'])} a video, {gibi(need['memory']['total'])} of memory"
        found.append(Finding("cost", "ok", words))
    return found


with guard("doctor"):
    show_page(open_shell())
