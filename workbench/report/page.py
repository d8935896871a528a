"""A report as one HTML file: everything inside it, every text escaped, nothing fetched."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

import pandas as pd
import plotly.graph_objects as go

from workbench.report.part import Clip, Part, Report

MOST_ROWS = 2500
"""Rows of a table that a page shows; the Python beside it makes the rest."""
CODE = re.compile(r"`([^`]+)`")
# What the page may do, enforced by the browser: run what is in it, fetch nothing.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "media-src data:; font-src data:; base-uri 'none'; form-action 'none'"
)


def render_report(report: Report) -> str:
    """The page: the same report is the same text."""
    figures = [part.figure for part in report.parts if part.figure is not None]
    body = [
        f"<header><p>{_text(report.title)}</p><h1>{_text(report.finding)}</h1></header>",
        "<main>",
        _about(report),
        *(_section(part, number) for number, part in enumerate(report.parts)),
        _videos(report.clips, report.left_out),
        _samples(report.samples),
        "</main>",
    ]
    plotly = files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8") if figures else ""
    scripts = [f"<script>{_code(plotly)}</script>", f"<script>{_own('report.js')}</script>"] if figures else []
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_text(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{_text(report.title)}</title>",
            f"<style>{_own('report.css')}</style>",
            "</head>",
            "<body>",
            *body,
            *scripts,
            "</body>",
            "</html>",
            "",
        ]
    )


def figure_json(figure: go.Figure) -> str:
    """A figure as JSON that cannot end the script it stands in, without the template, which has no colours for the dark.

    >>> figure_json(go.Figure(layout={"title": {"text": "</script>"}}))
    '{"data":[],"layout":{"title":{"text":"\\\\u003c/script>"}}}'
    """
    drawn = json.loads(go.Figure(figure).to_json())
    drawn["layout"].pop("template", None)
    # The page gives it, at most so much, and less on a narrow screen.
    drawn["layout"].pop("width", None)
    return json.dumps(drawn, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def table_html(frame: pd.DataFrame, most: int = MOST_ROWS) -> str:
    """A frame as a table; beyond `most` rows it says how many are left out.

    >>> "&lt;b&gt;" in table_html(pd.DataFrame({"prompt": ["<b>"]}))
    True
    """
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in frame.columns)
    rows = "".join(
        "<tr>" + "".join(_cell(value) for value in row) + "</tr>"
        for row in frame.head(most).itertuples(index=False, name=None)
    )
    more = f"<p>The first {most:,} of {len(frame):,} rows.</p>" if len(frame) > most else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    # Whoever has no mouse scrolls it with the keyboard.
    return f'<div class="table" tabindex="0" role="group" aria-label="Numbers">{table}</div>{more}'


def _about(report: Report) -> str:
    link = f'<a href="{_text(report.link)}">{_text(report.link)}</a>' if _is_web(report.link) else ""
    view = link or f"<code>?{_text(report.query)}</code> in the app" if report.query or link else "the page's defaults"
    groups = [
        f"<details{' open' if number == 0 else ''}><summary>{_text(title)}</summary>{_facts(facts)}</details>"
        for number, (title, facts) in enumerate((title, facts) for title, facts in report.about.items() if facts)
    ]
    return "\n".join(
        [
            '<section aria-label="What this is">',
            f"<p>Link of the view: {view}. This report again:</p>",
            f"<pre><code>{_text(report.command)}</code></pre>",
            *groups,
            "<noscript><p>Figures need scripts; all their numbers are in the tables.</p></noscript>",
            "</section>",
        ]
    )


def _section(part: Part, number: int) -> str:
    pieces = [f'<section aria-labelledby="part-{number}">', f'<h2 id="part-{number}">{_text(part.title)}</h2>']
    if part.words:
        pieces.append(f"<p>{_prose(part.words)}</p>")
    if part.facts:
        pieces.append(_facts(part.facts))
    if part.figure is not None:
        height = int(part.figure.layout.height or 300)
        width = part.figure.layout.width
        widest = f";max-width:{int(width)}px" if width else ""
        pieces.append(
            f'<div class="figure" role="group" aria-label="{_text(part.alt)}" style="height:{height}px{widest}"></div>'
            f'<script type="application/json">{figure_json(part.figure)}</script>'
        )
    if part.table is not None:
        # Without a figure the numbers are what there is to see.
        closed = "" if part.figure is None else "<details><summary>Numbers</summary>"
        pieces.append(closed + table_html(part.table) + ("</details>" if closed else ""))
    if part.python or part.command:
        made = [f"<pre><code>{_text(text)}</code></pre>" for text in (part.command, part.python) if text]
        pieces.append(f"<details><summary>What makes this</summary>{''.join(made)}</details>")
    return "\n".join([*pieces, "</section>"])


def _videos(clips: Sequence[Clip], left_out: str) -> str:
    if not clips:
        return ""
    pieces = ['<section aria-labelledby="videos">', '<h2 id="videos">Videos</h2>']
    if left_out:
        pieces.append(f"<p>{_text(left_out)}</p>")
    pieces.append('<div class="videos">')
    for clip in clips:
        caption = f"<figcaption>{_text(clip.caption)}</figcaption>"
        if clip.content is None:
            pieces.append(f"<figure><p>Not in this file: <code>{_text(clip.path.name)}</code></p>{caption}</figure>")
            continue
        source = "data:video/mp4;base64," + b64encode(clip.content).decode()
        pieces.append(
            f'<figure><video controls loop muted playsinline aria-label="{_text(clip.caption)}" src="{source}"></video>'
            f"{caption}</figure>"
        )
    return "\n".join([*pieces, "</div>", "</section>"])


def _samples(samples: pd.DataFrame) -> str:
    if samples.empty:
        return ""
    return (
        '<section aria-labelledby="samples"><h2 id="samples">Samples</h2>'
        f"<details><summary>{len(samples)} prompts and seeds</summary>{table_html(samples)}</details></section>"
    )


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{_text(name)}</dt><dd>{_prose(value)}</dd>" for name, value in facts) + "</dl>"


def _cell(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{_text(value)}</td>"
    known = value == value
    return f'<td class="number">{f"{value:.6g}" if known else ""}</td>'


def _is_web(link: str | None) -> bool:
    return link is not None and link.startswith(("http://", "https://"))


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _prose(value: object) -> str:
    """A text in which commands stand between backticks."""
    return CODE.sub(r"<code>\1</code>", _text(value))


def _own(name: str) -> str:
    return _code(files("workbench.report").joinpath(name).read_text("utf-8"))


def _code(text: str) -> str:
    """A script or style sheet as it may stand in a page."""
    if "</script" in text.lower() or "</style" in text.lower() or "<!--" in text:
        raise ValueError("this text would end the element that it stands in")
    return text
