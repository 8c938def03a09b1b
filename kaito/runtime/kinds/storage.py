"""Storage classes."""

from kaito.runtime.meta import Resource


class StorageClass(Resource, api="storage.k8s.io/v1", kind="StorageClass", plural="storageclasses", namespaced=False):
    """Class of dynamically provisioned volumes."""

    provisioner: str = ""
    parameters: dict[str, str] = {}
    reclaim_policy: str | None = None
    volume_binding_mode: str | None = None
    allow_volume_expansion: bool | None = None
    mount_options: list[str] = []
