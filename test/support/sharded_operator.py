"""An operator as a process: it prints when each reconcile begins and ends, and what it has seen.

    python test/support/sharded_operator.py KUBECONFIG NAMESPACE IDENTITY

`time.monotonic` is the same clock for all processes of a machine: the lines of several replicas can be compared.
"""

import asyncio
import sys
import time
from pathlib import Path

from kaito.runtime import Controller, Manager, Request, Settings
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.manager import Shards

RECONCILE_SECONDS = 0.3


def main() -> None:
    """Runs until a signal."""
    kubeconfig, namespace, identity = sys.argv[1:]

    def tell(what: str, request: Request[ConfigMap]) -> None:
        content = request.object.data.get("v", "")
        sys.stdout.write(f"{what} {time.monotonic():.6f} {identity} {request.key.name} {content}\n")
        sys.stdout.flush()

    async def reconcile(request: Request[ConfigMap]) -> None:
        if request.key.name.startswith("m"):
            tell("begin", request)
            try:
                await asyncio.sleep(RECONCILE_SECONDS)
                tell("seen", request)
            finally:
                tell("end", request)

    Manager(
        Settings(
            kubeconfig=Path(kubeconfig),
            identity=identity,
            namespaces=(namespace,),
            leader_election_namespace=namespace,
            metrics_bind_address="0",
            health_probe_bind_address="0",
            lease_duration_seconds=6,
            renew_deadline_seconds=4,
            retry_period_seconds=1,
        ),
        controllers=[Controller(ConfigMap, reconcile, name="maps", workers=4)],
        lease="sharded",
        shards=Shards(6),
    ).run()


if __name__ == "__main__":
    main()
