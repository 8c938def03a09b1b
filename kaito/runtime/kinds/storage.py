"""Storage classes."""

from typing import TYPE_CHECKING

from kaito.runtime.meta import Resource

if TYPE_CHECKING:
    from kaito.runtime.kinds.structs import TopologySelectorTerm
else:
    from kaito.runtime.kinds.deferred import TopologySelectorTerm


class StorageClass(Resource, api="storage.k8s.io/v1", kind="StorageClass", plural="storageclasses", namespaced=False):
    """Class of dynamically provisioned volumes."""

    provisioner: str = ""
    parameters: dict[str, str] = {}
    reclaim_policy: str | None = None
    volume_binding_mode: str | None = None
    allow_volume_expansion: bool | None = None
    mount_options: list[str] = []
    allowed_topologies: list[TopologySelectorTerm] = []
