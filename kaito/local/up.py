"""`kaito up`: runs the local cluster until it is interrupted."""

import asyncio

from kaito.local.cluster import local_cluster
from kaito.local.console import local_console
from kaito.local.options import Options
from kaito.local.view import View
from kaito.runtime.tasks import TaskScope

HINTS = """
  export KUBECONFIG={kubeconfig}
  kubectl apply -f config/samples/workspace-phi-3-mini.yaml   # or any Workspace of your own
  kubectl get workspaces,machines,nodes,pods
  kubectl describe workspace workspace-phi-3-mini
  curl -X POST http://$(kubectl get svc workspace-phi-3-mini -o jsonpath='{{.spec.clusterIP}}')/chat \\
       -H 'Content-Type: application/json' -d '{{"prompt":"What is the capital of France?"}}'
  curl -X POST {arm_url}/__admin/faults ...   # inject cloud faults: docs/getting-started/try-it.md, or the console

Ctrl-C ends everything.
"""


async def up(options: Options, view: View) -> None:
    """Runs until cancelled."""
    async with (
        TaskScope("up") as scope,
        local_cluster(options, scope, view.print) as cluster,
        local_console(cluster) as console,
    ):
        view.print(f"up; logs in {cluster.logs}")
        view.print(f"console: {console.link}")
        view.print_text(HINTS.format(kubeconfig=cluster.kubeconfig, arm_url=cluster.arm_url))
        scope.spawn(view.follow(cluster), name="view")
        await asyncio.Event().wait()
