"""Finds the volume attachments that must be deleted before a node is drained."""

from kaito.runtime import Api
from kaito.runtime.errors import NotFound
from kaito.runtime.kinds import PersistentVolumeClaim, Pod
from kaito.runtime.meta import Model, Resource


class VolumeAttachmentSource(Model):
    """The attached volume."""

    persistent_volume_name: str = ""


class VolumeAttachmentSpec(Model):
    """A volume and the node it is attached to."""

    attacher: str = ""
    node_name: str = ""
    source: VolumeAttachmentSource = VolumeAttachmentSource()


class VolumeAttachment(
    Resource, api="storage.k8s.io/v1", kind="VolumeAttachment", plural="volumeattachments", namespaced=False
):
    """Attachment of a volume to a node, `storage.k8s.io/v1`."""

    spec: VolumeAttachmentSpec = VolumeAttachmentSpec()


async def blocking_attachments(api: Api, node_name: str, remaining: list[Pod]) -> list[VolumeAttachment]:
    """Attachments of the node, without those of the pods that draining does not evict."""
    try:
        attachments = await api.client.list(VolumeAttachment)
    except NotFound:
        return []
    here = [attachment for attachment in attachments if attachment.spec.node_name == node_name]
    if not here:
        return []
    excluded = await _volumes_of(api, remaining)
    return [attachment for attachment in here if attachment.spec.source.persistent_volume_name not in excluded]


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
