"""The cluster-scoped classes that pods name, of which the preflight checks only that they exist."""

from typing import Final, Literal

from kaito.runtime.meta import Resource

ClassKind = Literal["PriorityClass", "RuntimeClass"]


class PriorityClass(
    Resource, api="scheduling.k8s.io/v1", kind="PriorityClass", plural="priorityclasses", namespaced=False
):
    """A priority of pods. The API server rejects pods that name a missing one."""


class RuntimeClass(Resource, api="node.k8s.io/v1", kind="RuntimeClass", plural="runtimeclasses", namespaced=False):
    """A container runtime. The API server rejects pods that name a missing one."""


BUILT_IN: Final = frozenset({"system-cluster-critical", "system-node-critical"})
"""Priority classes of every cluster."""
