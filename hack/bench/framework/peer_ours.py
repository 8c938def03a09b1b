"""The peer of the framework benchmark on kaito.runtime: sets data.done to data.want with a merge patch, ten workers."""

import sys
from pathlib import Path

from kaito.runtime import Cached, Controller, Manager, Request, Settings
from kaito.runtime.client import MergePatch
from kaito.runtime.kinds import ConfigMap


async def copy(request: Request[ConfigMap]) -> None:
    """Patch the object unless it is as wanted."""
    data = request.object.data
    if data.get("done") != data.get("want"):
        await request.api.patch(request.object, MergePatch({"data": {"done": data.get("want")}}))


if __name__ == "__main__":
    settings = Settings(
        kubeconfig=Path(sys.argv[1]),
        metrics_bind_address="0",
        health_probe_bind_address="0",
        leader_elect=False,
        log_level="warning",
    )
    Manager(
        settings,
        name="bench",
        controllers=[Controller(ConfigMap, copy, workers=10)],
        cache=[Cached(ConfigMap, labels={"bench": "yes"})],
    ).run()
