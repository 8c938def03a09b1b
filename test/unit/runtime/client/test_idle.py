"""What an idle operator with ten informers costs."""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest
import yaml

from kaito.apiserver.http import serve
from kaito.apiserver.server import ApiServer
from kaito.runtime.cache import Cached
from kaito.runtime.kinds import (
    ConfigMap,
    DaemonSet,
    Deployment,
    Job,
    Lease,
    Node,
    PersistentVolumeClaim,
    Pod,
    Service,
    StatefulSet,
)
from kaito.runtime.testing import World

KINDS = (ConfigMap, DaemonSet, Deployment, Job, Lease, Node, PersistentVolumeClaim, Pod, Service, StatefulSet)
IDLE_SECONDS = 1800.0

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from kaito.runtime import Cached, Manager, Settings
from kaito.runtime import kinds

async def main():
    settings = Settings(metrics_bind_address="0", health_probe_bind_address="0", leader_elect=False,
                        log_level="warning", kubeconfig=Path(sys.argv[1]))
    cached = [Cached(getattr(kinds, name)) for name in sys.argv[2:]]
    async with Manager(settings, cache=cached, name="idle") as manager:
        assert await manager.api.list(kinds.Node) == []
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        # Not getrusage: its maximum is inherited from the process that started this one.
        print(json.dumps({"kib": int(status["VmHWM"].split()[0]),
                          "generated": "kubernetes_asyncio.client.models" in sys.modules}))

asyncio.run(main())
"""


@pytest.mark.conformance("client-12")
async def test_client_12_ten_idle_informers_take_less_than_a_hundredth_of_a_core(world: World) -> None:
    async with world.manager(cache=[Cached(kind) for kind in KINDS]):
        await world.settle()
        world.clear_requests()
        started = time.process_time()
        await world.advance(IDLE_SECONDS)  # half an hour of bookmarks and watches that end, without the waiting
        spent = time.process_time() - started
    assert spent < IDLE_SECONDS / 100
    assert world.count("list") == 0
    assert world.count("watch") <= len(KINDS) * (IDLE_SECONDS / 300)


@pytest.mark.conformance("client-12")
async def test_client_12_ten_informers_fit_into_120_mebibytes(tmp_path: Path) -> None:
    async with serve(ApiServer(), token="letmein") as served:
        kubeconfig = tmp_path / "config"
        kubeconfig.write_text(yaml.safe_dump(served.kubeconfig()))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            str(kubeconfig),
            *(kind.kind for kind in KINDS),
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(printed)
    assert found["kib"] < 120 * 1024
    assert found["generated"] is False
