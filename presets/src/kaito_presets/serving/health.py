"""Server states, as `GET /health` reports them, and the 503 response outside `Healthy`.

Both servers listen before the model is loaded, so that probes can tell a slow start from a dead process.
"""

from typing import Final, Literal

from kaito_presets.errors import Unavailable

ServerState = Literal["Loading", "Healthy", "Draining"]
"""The model is loading, requests are served, or running requests finish after SIGTERM; in this order."""

ROOT_RESPONSE: Final = {"message": "Server is running"}
"""Body of `GET /`."""

LAST_REQUEST: Final = "kaito_last_request_timestamp_seconds"
LAST_REQUEST_HELP: Final = "Time at which a request for an answer last began or ended; else the start of the server."
"""Gauge by which idle Workspaces are found (`kaito cost`)."""

PROMETHEUS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def require_healthy(state: ServerState) -> None:
    """Rejects a request unless the server can serve it.

    Raises:
        Unavailable: the model is still loading, or the server is draining.
    """
    if state == "Loading":
        raise Unavailable("the server is still loading its model")
    if state == "Draining":
        raise Unavailable("the server is shutting down")
