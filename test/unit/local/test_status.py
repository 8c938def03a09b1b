"""The status of a local pod reaches that pod only."""

from kaito.local.kubelet.status import write_status
from kaito.runtime.client import Client
from kaito.runtime.kinds import Pod
from kaito.runtime.testing import World


def pod() -> Pod:
    return Pod.model_validate(
        {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )


async def test_the_last_status_of_a_former_pod_does_not_reach_the_new_one(world: World) -> None:
    """10-local-status-of-former-pod: the new pod carried the restarts and the error of the old one."""
    client = Client(world.transport(), field_manager="kubelet")
    former = await client.create(pod())
    await client.delete(former, grace_seconds=0)
    new = await client.create(pod())
    await write_status(client, former, {"phase": "Failed", "message": "of the former pod"})
    assert (await client.get(Pod, "p", "default")).status.message in {"", None}
    await write_status(client, new, {"phase": "Running", "message": "of the new pod"})
    assert (await client.get(Pod, "p", "default")).status.message == "of the new pod"


async def test_a_pod_that_is_gone_needs_no_status(world: World) -> None:
    client = Client(world.transport(), field_manager="kubelet")
    former = await client.create(pod())
    await client.delete(former, grace_seconds=0)
    await write_status(client, former, {"phase": "Failed"})


async def test_a_server_that_fails_is_asked_again(world: World) -> None:
    client = Client(world.transport(), field_manager="kubelet")
    made = await client.create(pod())
    world.fail_next("PATCH", Pod, status=503, times=2)
    await write_status(client, made, {"phase": "Running"})
    assert (await client.get(Pod, "p", "default")).status.phase == "Running"
