"""What the tests of pages share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from workbench.places import PROJECT


@pytest.fixture
def open_page(tmp_path, monkeypatch) -> Callable[..., AppTest]:
    """open_page(page, folder, **link) runs a page on a folder of captures; jobs are queued, and no worker starts."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("PARE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("PARE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("workbench.jobs.api.Jobs.ensure_worker", lambda *_, **__: None)

    def run(page: str, folder: Path | None, **link: str) -> AppTest:
        monkeypatch.setenv("PARE_FOLDERS", str(folder or ""))
        test = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=60)
        test.switch_page(page)
        for key, text in link.items():
            test.query_params[key] = text
        return test.run()

    return run
