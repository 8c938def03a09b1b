"""The StatefulSet controller of the local cluster: pods with ordinals, replaced when their template changes.

Pods start in parallel or in order, depending on the pod management policy; a rollout replaces one old pod at a time,
highest ordinal first (Kubernetes documentation, "StatefulSets"). Volume claim templates become claims that are kept
after their pods.
"""

import hashlib
import json

from kaito.runtime.controller import Controller
from kaito.runtime.kinds import PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, StatefulSet, Volume
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.predicate import changed
from kaito.runtime.reconcile import Again, Request

REVISION_LABEL = "controller-revision-hash"
POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"


def stateful_sets() -> Controller[StatefulSet]:
    """The controller, for a manager."""
    return Controller(StatefulSet, reconcile, name="statefulset", workers=4, when=changed("generation")).owns(Pod)


async def reconcile(request: Request[StatefulSet]) -> Again | None:
    """Creates, replaces and deletes pods, and writes the status."""
    workload = request.object
    revision = revision_of(workload)
    pods = await request.api.list(Pod, namespace=workload.namespace, owned_by=workload)
    living = {pod.name: pod for pod in pods}
    await _remove_surplus(request, living)
    await _replace_failed(request, living)
    await _replace_outdated(request, living, revision)
    await _create_missing(request, living, revision)
    async with request.status() as status:
        ready = [pod for pod in pods if pod.is_ready]
        current = [pod for pod in pods if pod.labels.get(REVISION_LABEL) == revision]
        status.set(
            observed_generation=workload.metadata.generation,
            replicas=len(pods),
            ready_replicas=len(ready),
            available_replicas=len(ready),
            current_replicas=len(current),
            updated_replicas=len(current),
            current_revision=revision,
            update_revision=revision,
        )
    return None


def revision_of(workload: StatefulSet) -> str:
    """The name of the template's revision: in Kubernetes that of the ControllerRevision, and the label of the pods."""
    template = json.dumps(workload.spec.template.to_dict(), sort_keys=True)
    return f"{workload.name}-{hashlib.sha256(template.encode()).hexdigest()[:10]}"


def wanted_names(workload: StatefulSet) -> list[str]:
    """The pod names of a set, by ordinal."""
    replicas = 1 if workload.spec.replicas is None else workload.spec.replicas
    return [f"{workload.name}-{ordinal}" for ordinal in range(replicas)]


def pod_of(workload: StatefulSet, ordinal: int, revision: str) -> Pod:
    """The pod with that ordinal."""
    template = workload.spec.template
    name = f"{workload.name}-{ordinal}"
    claims = [
        Volume(
            name=claim.name,
            persistent_volume_claim=PersistentVolumeClaimVolumeSource(claim_name=f"{claim.name}-{name}"),
        )
        for claim in workload.spec.volume_claim_templates
    ]
    labels = {REVISION_LABEL: revision, POD_NAME_LABEL: name, POD_INDEX_LABEL: str(ordinal)}
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace=workload.namespace,
            labels=template.metadata.labels | labels,
            annotations=template.metadata.annotations,
            owner_references=[workload.owner_reference()],
        ),
        spec=template.spec.evolve(
            hostname=name, subdomain=workload.spec.service_name, volumes=[*template.spec.volumes, *claims]
        ),
    )


async def _remove_surplus(request: Request[StatefulSet], living: dict[str, Pod]) -> None:
    wanted = set(wanted_names(request.object))
    for name, pod in living.items():
        if name not in wanted and not pod.deleting:
            await request.api.delete(pod)


async def _replace_failed(request: Request[StatefulSet], living: dict[str, Pod]) -> None:
    for pod in living.values():
        if pod.status.phase in {"Failed", "Succeeded"} and not pod.deleting:
            await request.api.delete(pod)


async def _replace_outdated(request: Request[StatefulSet], living: dict[str, Pod], revision: str) -> None:
    """Deletes one outdated pod, once every pod is there and every new one is ready."""
    outdated = [pod for pod in living.values() if pod.labels.get(REVISION_LABEL) != revision]
    complete = all(name in living for name in wanted_names(request.object))
    settled = all(
        not pod.deleting and (pod.is_ready or pod.labels.get(REVISION_LABEL) != revision) for pod in living.values()
    )
    if outdated and complete and settled:
        await request.api.delete(max(outdated, key=lambda pod: int(pod.labels.get(POD_INDEX_LABEL, "0"))))


async def _create_missing(request: Request[StatefulSet], living: dict[str, Pod], revision: str) -> None:
    workload = request.object
    ordered = workload.spec.pod_management_policy != "Parallel"
    for ordinal, name in enumerate(wanted_names(workload)):
        pod = living.get(name)
        if pod is None:
            for template in workload.spec.volume_claim_templates:
                await request.api.ensure(_claim(workload, template, name))
            await request.api.create(pod_of(workload, ordinal, revision))
        if ordered and (pod is None or not pod.is_ready):
            return


def _claim(workload: StatefulSet, template: PersistentVolumeClaim, pod: str) -> PersistentVolumeClaim:
    metadata = ObjectMeta(name=f"{template.name}-{pod}", namespace=workload.namespace, labels=template.labels)
    return PersistentVolumeClaim(metadata=metadata, spec=template.spec)
