"""Situations that the real controllers produce in virtual time: root cause, since when, what is next, the remedy.

Each scenario leaves the system in a situation; the table states the diagnosis that `kaito explain` gives then.
"""

from typing import Final

import pytest

from kaito.api import conditions
from kaito.runtime.kinds import Node, Pod, Secret, StatefulSet
from kaito.runtime.meta import format_time
from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.record import FactsRecord
from test.unit.diagnosis.conftest import NAME, SIZE, Scene, tuning, workspace
from test.unit.diagnosis.table import Expected, Table

TABLE: Final = Table()


# -- claims and the cloud ---------------------------------------------------------------------------------------------


@TABLE.add(
    Expected(
        reason="QuotaExceeded",
        on="Machine",
        message="Insufficient vcpu quota requested 24, remaining 0 for family [^;]*$",
        since=60,
        next="makes the next launch attempt; 1 failed",
        at=540,
        remedy=r"az vm list-usage --location REGION",
        chain={"Workspace": "failed", "Machine": "failed", "AgentPool": "absent", "Node": "absent", "Server": "absent"},
    )
)
async def quota(scene: Scene) -> None:
    scene.fail("quota")
    await scene.start()
    await scene.apply(workspace(), 60)


@TABLE.add(
    Expected(
        reason="InsufficientCapacity",
        on="Machine",
        message="AllocationFailed|ZonalAllocationFailed|capacity",
        since=None,
        next="makes the next launch attempt",
        at=None,
        remedy="another instance type or region",
        tolerance=600,
    )
)
async def stock_out(scene: Scene) -> None:
    scene.fail("capacity")
    await scene.start()
    await scene.apply(workspace(), 420)


@TABLE.add(
    Expected(
        reason="Unauthorized",
        on="Machine",
        message="AuthorizationFailed|does not have authorization",
        since=None,
        next="makes the next launch attempt",
        remedy="give the identity of gpu-provisioner the role",
    )
)
async def missing_role(scene: Scene) -> None:
    scene.fail("unauthorized")
    await scene.start()
    await scene.apply(workspace(), 30)


@TABLE.add(
    Expected(
        reason="AgentPoolCreating",
        on="Machine",
        message="is being created",
        since=90,
        next="the provisioner polls the cloud",
        at=810,
        remedy="",
        state="progressing",
        chain={"Machine": "waiting", "AgentPool": "waiting", "StatefulSet": "absent"},
    )
)
async def pool_in_progress(scene: Scene) -> None:
    await scene.start()
    await scene.apply(workspace(), 90)


@TABLE.add(
    Expected(
        reason="NoProvisioner",
        on="Machine",
        message="no provisioner has reported .* no Deployment gpu-provisioner",
        since=120,
        next="given up and replaced",
        at=780,
        remedy="--node-api of the workspace-controller and of gpu-provisioner must agree: the claims are machines",
    )
)
async def no_provisioner(scene: Scene) -> None:
    await scene.start(provisioner=False)
    await scene.apply(workspace(), 120)


@TABLE.add(
    Expected(
        reason="NodeProvisionTimeout",
        on="Workspace",
        message="not launched within 900 s",
        since=None,
        next="creates the next claim; 1 lost so far",
        at=25,
        remedy="gpu-provisioner",
        tolerance=6,
    )
)
async def claim_given_up(scene: Scene) -> None:
    await scene.start(provisioner=False)
    await scene.apply(workspace(), 905)


@TABLE.add(
    Expected(
        reason="NodeClaimCreateFailed",
        on="Workspace",
        message="could not be created: .*denied by the administrator",
        since=60,
        next="the workspace-controller tries again",
        remedy="remove what the message names",
    )
)
async def claim_rejected(scene: Scene) -> None:
    await scene.start()
    message = 'admission webhook "policy.example" denied the request: denied by the administrator'
    scene.world.fail_next("create", scene.kind, status=403, message=message, times=None)
    await scene.apply(workspace(), 60)


@TABLE.add(
    Expected(
        reason="NodeNotFound",
        on="Machine",
        message="",
        since=None,
        next="the node joins within minutes",
        remedy="boot diagnostics",
        state="progressing",
        chain={"AgentPool": "ok", "Node": "absent"},
    )
)
async def node_never_joins(scene: Scene) -> None:
    scene.simulator.knobs.set(never_join=True)
    await scene.start()
    await scene.apply(workspace(), 400)


@TABLE.add(
    Expected(
        reason="ResourceNotRegistered",
        on="Machine",
        message="nvidia.com/gpu",
        since=None,
        next="the device plugin starts",
        remedy="install the device plugin",
        state="progressing",
        chain={"AgentPool": "ok", "Node": "waiting"},
    )
)
async def no_device_plugin(scene: Scene) -> None:
    scene.simulator.knobs.set(gpu_delay=100_000.0)
    await scene.start()
    await scene.apply(workspace(), 400)


@TABLE.add(
    Expected(
        reason="AlternativesExhausted",
        on="Workspace",
        message="Standard_NC24ads_A100_v4.*Standard_NC40ads_H100_v5",
        since=None,
        next="the workspace-controller tries again",
        remedy="add an instance type to resource.instanceTypes",
    )
)
async def every_alternative_out_of_stock(scene: Scene) -> None:
    scene.fail("sku")
    await scene.start()
    types = ["Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5"]
    resource = {"instanceTypes": types, "labelSelector": {"matchLabels": {"apps": NAME}}}
    await scene.apply(workspace(resource=resource), 120)


@TABLE.add(
    Expected(
        reason="BudgetExceeded",
        on="Workspace",
        message="maxHourlyCost|0.01",
        since=60,
        next="no node is bought until the cost is below the limit",
        remedy="raise resource.maxHourlyCost",
        chain={"Machine": "absent"},
    )
)
async def too_expensive(scene: Scene) -> None:
    await scene.start(region="eastus")
    resource = {"instanceType": SIZE, "maxHourlyCost": "0.01", "labelSelector": {"matchLabels": {"apps": NAME}}}
    await scene.apply(workspace(resource=resource), 60)


# -- nodes ------------------------------------------------------------------------------------------------------------


@TABLE.add(
    Expected(
        reason="NodeNotReady",
        on="Node",
        message=r"is not Ready \(KubeletNotReady",
        since=120,
        next="the Machine of the node is deleted and replaced",
        at=480,
        remedy="kubectl describe node aks-",
        chain={"AgentPool": "ok", "Node": "failed", "Workspace": "failed"},
        tolerance=15,
    )
)
async def node_not_ready(scene: Scene) -> None:
    await scene.start()
    await scene.apply(workspace())
    await scene.until_ready()
    scene.world.patch(
        Node,
        scene.node().name,
        {
            "status": {
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "False",
                        "reason": "KubeletNotReady",
                        "message": "container runtime is down",
                        "lastTransitionTime": format_time(scene.world.now),
                    }
                ]
            }
        },
        subresource="status",
    )
    await scene.world.advance(120)


@TABLE.add(
    Expected(
        reason="NodeNotReady",
        on="Node",
        message="is cordoned",
        since=60,
        next="continues when the node is usable",
        remedy="kubectl describe node aks-",
        serving=True,
        chain={"Node": "failed", "Pod": "ok", "Server": "ok"},
    )
)
async def node_cordoned(scene: Scene) -> None:
    await scene.start()
    await scene.apply(workspace())
    await scene.until_ready()
    scene.world.patch(Node, scene.node().name, {"spec": {"unschedulable": True}})
    await scene.world.advance(60)


# -- planning ---------------------------------------------------------------------------------------------------------


@TABLE.add(
    Expected(
        reason="InstanceTypeTooSmall",
        on="Workspace",
        message="phi-4.*GiB",
        since=30,
        next="until the Workspace is changed",
        remedy="with the instance type that the message names",
        chain={"Machine": "absent", "StatefulSet": "absent"},
    )
)
async def model_too_large(scene: Scene) -> None:
    await scene.start()
    inference = {"preset": {"name": "phi-4"}}
    resource = {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "x"}}}
    await scene.apply(workspace(resource=resource, inference=inference), 30)


@TABLE.add(
    Expected(
        reason="SecretNotFound",
        on="Workspace",
        message="'?push'?",
        since=45,
        next="looks for the Secret every 10 s",
        remedy="create the Secret",
    )
)
async def missing_secret(scene: Scene) -> None:
    await scene.start()
    await scene.apply(tuning(), 45)


@TABLE.add(
    Expected(
        reason="ConfigNotFound",
        on="Workspace",
        message="settings",
        since=45,
        next="at once when the ConfigMap changes",
        remedy="create the ConfigMap with the key inference_config.yaml",
    )
)
async def missing_config(scene: Scene) -> None:
    await scene.start()
    inference = {"preset": {"name": "phi-3-mini-4k-instruct"}, "config": "settings"}
    await scene.apply(workspace(inference=inference), 45)


async def _gated(query: ModelQuery) -> FactsRecord:
    raise ModelUnavailable(
        conditions.MODEL_GATED, f"{query.reference} requires a token with access", is_transient=False
    )


@TABLE.add(
    Expected(
        reason="ModelGated",
        on="Workspace",
        message="requires a token with access",
        since=30,
        next="read again within 5 min",
        remedy="accept the license",
    )
)
async def gated_model(scene: Scene) -> None:
    scene.world.put(Secret.model_validate({"metadata": {"name": "hf"}, "data": {"HF_TOKEN": "aGZfdG9rZW4="}}))
    await scene.start(read_model=_gated)
    preset = {"name": "example/gated-1b", "presetOptions": {"modelAccessSecret": "hf"}}
    await scene.apply(workspace(inference={"preset": preset}), 30)


# -- pods -------------------------------------------------------------------------------------------------------------


async def _with_pod(scene: Scene) -> Pod:
    """Starts everything; returns the pod, whose containers have not started."""
    await scene.start(ready_after=1_000_000)
    await scene.apply(workspace(), 300)
    return scene.pod()


@TABLE.add(
    Expected(
        reason="ImagePullError",
        on="Pod",
        message="ImagePullBackOff: .*not found",
        since=60,
        next="the kubelet tries again with growing delays up to 5 min",
        remedy="check that the image in the message exists",
        chain={"Node": "ok", "Pod": "failed", "Server": "failed"},
    )
)
async def image_pull(scene: Scene) -> None:
    pod = await _with_pod(scene)
    scene.event(pod, "Failed", "Failed to pull image: not found", count=3)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x": not found'}
    scene.container(pod, state={"waiting": waiting})
    await scene.world.advance(60)


@TABLE.add(
    Expected(
        reason="ContainerCrashLoopBackOff",
        on="Pod",
        message="ends repeatedly .*5 restarts.*CUDA out of memory",
        since=30,
        next="the kubelet restarts container .*; 5 restarts so far",
        at=130,
        remedy="lower max-model-len",
    )
)
async def crash_loop(scene: Scene) -> None:
    pod = await _with_pod(scene)
    now = format_time(scene.world.now)
    ended = {"exitCode": 1, "reason": "Error", "message": "CUDA out of memory", "finishedAt": now, "startedAt": now}
    message = "back-off 2m40s restarting failed container=x pod=phi-0"
    waiting = {"reason": "CrashLoopBackOff", "message": message}
    scene.container(pod, state={"waiting": waiting}, lastState={"terminated": ended}, restartCount=5)
    await scene.world.advance(30)


@TABLE.add(
    Expected(
        reason="ProbeFailing",
        on="Pod",
        message="runs and is not ready: Readiness probe failed: HTTP probe failed with statuscode: 503",
        since=90,
        next="the kubelet repeats the probe",
        at=None,
        remedy="kubectl -n default logs phi-0",
    )
)
async def unready_probe(scene: Scene) -> None:
    pod = await _with_pod(scene)
    scene.container(pod, state={"running": {"startedAt": format_time(scene.world.now)}})
    scene.event(pod, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", count=20)
    await scene.world.advance(90)


@TABLE.add(
    Expected(
        reason="Unschedulable",
        on="Pod",
        message="Insufficient nvidia.com/gpu",
        since=60,
        next="scheduler tries again",
        remedy="kubectl describe node",
    )
)
async def unschedulable(scene: Scene) -> None:
    pod = await _with_pod(scene)
    message = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu."
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": format_time(scene.world.now),
    }
    scene.set_pod(pod, phase="Pending", conditions=[condition])
    await scene.world.advance(60)


@TABLE.add(
    Expected(
        reason="ContainerStartError",
        on="Pod",
        message='FailedMount: .*secret "hf" not found',
        since=90,
        next="the kubelet tries again",
        remedy="describe pod phi-0",
    )
)
async def volume_not_mounted(scene: Scene) -> None:
    pod = await _with_pod(scene)
    scene.event(pod, "FailedMount", 'MountVolume.SetUp failed for volume "token": secret "hf" not found', count=4)
    await scene.world.advance(90)


@TABLE.add(
    Expected(
        reason="PodCreationFailed",
        on="StatefulSet",
        message='failed calling webhook "inject.example"',
        since=60,
        next="Kubernetes tries to create the pod again",
        remedy="the webhook inject.example does not answer",
        chain={"StatefulSet": "waiting"},
    )
)
async def webhook_down(scene: Scene) -> None:
    await scene.start(ready_after=None)
    await scene.apply(workspace(), 300)
    stateful_set = scene.world.get(StatefulSet, NAME)
    note = 'create Pod phi-0 in StatefulSet phi failed: failed calling webhook "inject.example": connection refused'
    scene.event(stateful_set, "FailedCreate", note, count=6)
    await scene.world.advance(60)


@TABLE.add(
    Expected(
        reason="ServiceMissing",
        on="Service",
        message="the Service phi does not exist",
        since=None,
        next="creates the Service",
        remedy="logs",
        serving=True,
    )
)
async def service_deleted_without_controller(scene: Scene) -> None:
    from kaito.runtime.kinds import Service

    await scene.start()
    await scene.apply(workspace())
    await scene.until_ready()
    await scene.stop()
    scene.world.delete(Service, NAME)
    await scene.world.advance(5)


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", TABLE)
async def test_the_situation_is_explained(scene: Scene, name: str) -> None:
    await TABLE.check(name, scene)
