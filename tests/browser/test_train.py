"""The Train page in a real browser: the curves are there without scrolling, and a validation is found again by its link."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ROOT
from tests.browser.waiting import drawn
from tests.training_files import make_training


@pytest.fixture
def address(serve, tmp_path) -> str:
    make_training(tmp_path / "mine" / "joint", stage="joint", validated=(5, 10, 20))
    places = {
        "PARE_WORKSPACE": str(tmp_path / "workspace"),
        "PARE_FOLDERS": str(tmp_path / "mine"),
        "PARE_DATA": str(tmp_path),
    }
    return serve(ROOT / "app.py", places)


def test_curves_are_in_sight_and_a_validation_has_a_link(address, new_page):
    page = new_page(1440, 900)
    page.goto(f"{address}/train")
    drawn(page)
    curves = page.locator(".st-key-chart_train_losses .js-plotly-plot")
    box = curves.bounding_box()
    assert box is not None and box["y"] + box["height"] < 900
    slider = page.get_by_role("slider", name="Validation at step")
    slider.focus()
    slider.press("ArrowLeft")
    expect(page.get_by_role("heading", name="Head roles at step 10")).to_be_visible()
    page.wait_for_url("**/train?*at=10*")
    page.reload()
    drawn(page)
    expect(page.get_by_role("heading", name="Head roles at step 10")).to_be_visible()
    expect(page.get_by_role("figure", name="student at step 10")).to_be_visible()
