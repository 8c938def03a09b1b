"""Volume attachments: what keeps a node's disks attached, as far as draining has to wait for it."""

from kaito.runtime import Api
from kaito.runtime.errors import NotFound
from kaito.runtime.kinds import PersistentVolumeClaim, Pod
from kaito.runtime.meta import Model, Resource


class VolumeAttachmentSource(Model):
    """Which volume."""

    persistent_volume_name: str = ""


class VolumeAttachmentSpec(Model):
    """Which volume is attached where."""

    attacher: str = ""
    node_name: str = ""
    source: VolumeAttachmentSource = VolumeAttachmentSource()


class VolumeAttachment(
    Resource, api="storage.k8s.io/v1", kind="VolumeAttachment", plural="volumeattachments", namespaced=False
):
    """A volume attached to a node."""

    spec: VolumeAttachmentSpec = VolumeAttachmentSpec()


async def blocking_attachments(api: Api, node_name: str, staying: list[Pod]) -> list[VolumeAttachment]:
    """Attachments on the node that will go because their pods do; those of pods that stay are not waited for."""
    try:
        attachments = await api.client.list(VolumeAttachment)
    except NotFound:
        return []
    here = [attachment for attachment in attachments if attachment.spec.node_name == node_name]
    if not here:
        return []
    kept = await _volumes_of(api, staying)
    return [attachment for attachment in here if attachment.spec.source.persistent_volume_name not in kept]


async def _volumes_of(api: Api, pods: list[Pod]) -> set[str]:
    volumes: set[str] = set()
    for pod in pods:
        for volume in pod.spec.volumes:
            if volume.persistent_volume_claim is None:
                continue
            name = volume.persistent_volume_claim.claim_name
            claim = await api.client.find(PersistentVolumeClaim, name, pod.namespace)
            if claim is not None and claim.spec.volume_name:
                volumes.add(claim.spec.volume_name)
    return volumes
