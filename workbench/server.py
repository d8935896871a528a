"""The web server of the app: the Streamlit script with routes for videos, headers and safe settings.

`python -m workbench.server PORT` runs it on the places that the environment names; `pare app` starts it that way.
"""

import os
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import streamlit as st
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pare.errors import InputError
from workbench.places import PROJECT, Places

VIDEO_ROUTE = "/api/video"
PLOTLY_ROUTE = "/api/plotly.min.js"
ROUTES_VARIABLE = "PARE_ROUTES"
"""Set in a process that serves the routes below, so that pages can tell it from a plain `streamlit run app.py`."""

HOSTS = ["localhost", "127.0.0.1", "[::1]"]
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"SAMEORIGIN",
    b"referrer-policy": b"same-origin",
}
CONFIG = {
    "server.address": "127.0.0.1",
    "server.headless": True,
    "server.allowedHosts": ["localhost", "127.0.0.1"],
    # Streamlit's defaults, said here so that no setting of the person's own opens the app to other sites.
    "server.enableXsrfProtection": True,
    "server.enableCORS": True,
    "server.fileWatcherType": "none",
    "server.maxUploadSize": 64,
    "server.showEmailPrompt": False,
    "browser.gatherUsageStats": False,
    # Pages say what they show; rewriting every bare expression only delays a page's first run.
    "runner.magicEnabled": False,
    "client.toolbarMode": "viewer",
    "client.showErrorDetails": "none",
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#56B4E9",
}
"""Settings of every start; `.streamlit/config.toml` holds the same for a plain `streamlit run app.py`."""


def video_address(places: Places, path: Path) -> str | None:
    """The address under which this server plays an existing video, or None where it does not (see ROUTES_VARIABLE)."""
    name = places.name_of(path) if os.environ.get(ROUTES_VARIABLE) else None
    return f"{VIDEO_ROUTE}/{quote(name)}" if name else None


def plotly_address() -> str | None:
    """The address of this server's plotly.js, the one that made the figures; None where it is not served (as above)."""
    return f"{PLOTLY_ROUTE}?v={version('plotly')}" if os.environ.get(ROUTES_VARIABLE) else None


class SecurityHeaders:
    """Adds the headers that keep other sites from framing the app and browsers from guessing types."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *((k, v) for k, v in HEADERS.items() if k not in present)]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def routes(places: Places) -> list[Route]:
    """The routes beside Streamlit's own: videos below the places, with Range requests, and plotly.js."""

    def video(request: Request) -> FileResponse:
        try:
            path = places.find(request.path_params["name"])
        except InputError as error:
            raise HTTPException(404, "no such video") from error
        if path.suffix.lower() != ".mp4" or not path.is_file():
            raise HTTPException(404, "no such video")
        return FileResponse(path, media_type="video/mp4", headers={"Cache-Control": "private, no-cache"})

    def plotly(_: Request) -> FileResponse:
        path = str(files("plotly").joinpath("package_data", "plotly.min.js"))
        # Its address names its version, so it never changes.
        return FileResponse(path, media_type="text/javascript", headers={"Cache-Control": "private, max-age=31536000"})

    return [
        Route(VIDEO_ROUTE + "/{name:path}", video, methods=["GET"]),
        Route(PLOTLY_ROUTE, plotly, methods=["GET"]),
    ]


def middleware() -> list[Middleware]:
    """Host check (against DNS rebinding) and headers, for every answer of the server."""
    return [Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS), Middleware(SecurityHeaders)]


def main(port: int) -> None:
    """Serve on this port of 127.0.0.1 until stopped."""
    os.environ[ROUTES_VARIABLE] = "1"
    app = st.App(PROJECT / "app.py", routes=routes(Places.from_environment()), middleware=middleware())
    app.run(config={**CONFIG, "server.port": port})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8501)
