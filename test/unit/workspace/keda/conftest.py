"""A Workspace with ready copies whose servers report what the test sets."""

from typing import Any

from kaito.api import InferenceSet, Workspace, crds, labels
from kaito.runtime.kinds import Pod
from kaito.runtime.testing import World, builders
from test.unit.workspace.inference_sets.conftest import inference_set

NAME = "phi"
METRICS = "vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n"


class Scene:
    """A cluster with Workspaces, pods and the metrics of their servers."""

    def __init__(self, world: World) -> None:
        self.world = world
        for definition in crds.manifests():
            world.install(definition)
        self.bodies: dict[str, bytes] = {}
        self.reads = 0

    def workspace(self, phi: Workspace, **spec: Any) -> Workspace:
        document = phi.with_metadata(name=NAME).to_dict() | {"spec": {"replicas": 1, **spec}}
        return self.world.put(Workspace.model_validate(document))

    def inference_set(self, **spec: Any) -> InferenceSet:
        return self.world.put(inference_set(**spec).with_metadata(name=NAME))

    def copy(self, ordinal: int, body: str | None, *, workspace: str = NAME, created_by: str = "") -> None:
        """Starts a ready copy; its server does not answer if `body` is None."""
        own = {labels.WORKSPACE: workspace} | ({labels.CREATED_BY_INFERENCESET: created_by} if created_by else {})
        pod = builders.pod(f"{workspace}-{ordinal}", labels=own, node_name="node")
        address = f"10.0.0.{ordinal + 1}"
        self.world.put(pod)
        self.world.patch(Pod, pod.name, {"status": {"podIP": address}}, subresource="status")
        self.report(ordinal, body)

    def report(self, ordinal: int, body: str | None) -> None:
        address = f"10.0.0.{ordinal + 1}"
        self.bodies.pop(address, None)
        if body is not None:
            self.bodies[address] = body.encode()

    async def fetch(self, address: str) -> bytes | None:
        self.reads += 1
        return self.bodies.get(address)
