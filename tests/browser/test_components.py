"""What holds for every component of the app: nobody meets it half made."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

COMPONENTS = Path(__file__).resolve().parents[2] / "workbench" / "components"
HTML = sorted(COMPONENTS.glob("*/*.html"))


def test_there_are_components():
    assert {"block_map", "copy_button", "head_grid"} <= {path.stem for path in HTML}


@pytest.mark.parametrize("path", HTML, ids=[path.stem for path in HTML])
def test_the_first_paint_before_any_script_passes_the_accessibility_scan(page: Page, path: Path):
    html = path.read_text(encoding="utf-8")
    page.set_content(
        f"<!doctype html><html lang='en'><title>First paint</title><main><h1>Page</h1>{html}</main></html>"
    )
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
