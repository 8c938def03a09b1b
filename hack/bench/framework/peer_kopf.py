"""The peer of the framework benchmark on kopf: sets data.done to data.want with a merge patch, a worker per object."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import kopf
import yaml


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """No events posted. No worker limit either: kopf's workers linger five seconds, so ten of them would starve."""
    settings.posting.enabled = False


@kopf.on.login()
def login(**_: Any) -> kopf.ConnectionInfo:
    """The first cluster and user of the kubeconfig."""
    config = yaml.safe_load(Path(sys.argv[1]).read_text())
    cluster = config["clusters"][0]["cluster"]
    token = config["users"][0]["user"]["token"]
    return kopf.ConnectionInfo(server=cluster["server"], ca_path=cluster["certificate-authority"], token=token)


@kopf.on.event("", "v1", "configmaps", labels={"bench": "yes"})
async def copy(body: kopf.Body, patch: kopf.Patch, **_: Any) -> None:
    """Ask for the patch; kopf sends it after the handler."""
    want = body["data"].get("want")
    if body["data"].get("done") != want:
        patch.setdefault("data", {})["done"] = want


asyncio.run(kopf.operator(namespaces=["default"], standalone=True))
