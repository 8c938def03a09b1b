"""Renders the Service of an InferenceSet: one address for all of its Workspaces."""

from kaito.api import InferenceSet, labels
from kaito.runtime.kinds import Service, ServicePort, ServiceSpec
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.manifests.service import SERVER_PORT


def pod_selector(inference_set: InferenceSet) -> dict[str, str]:
    """Returns the label of the pods that serve requests for the set: one of each copy of the model."""
    return {labels.CREATED_BY_INFERENCESET: inference_set.name}


def set_service(inference_set: InferenceSet) -> Service:
    """Returns the Service: port 80 for the servers of every ready pod. The Workspaces keep their own Services.

    The annotation `kaito.sh/enablelb` makes it a load balancer.
    """
    is_public = labels.is_true(inference_set.annotations.get(labels.ENABLE_LOAD_BALANCER))
    return Service(
        metadata=ObjectMeta(
            name=inference_set.name, namespace=inference_set.namespace, labels=pod_selector(inference_set)
        ),
        spec=ServiceSpec(
            type="LoadBalancer" if is_public else "ClusterIP",
            selector=pod_selector(inference_set),
            ports=[ServicePort(name="http", port=80, target_port=SERVER_PORT, protocol="TCP")],
        ),
    )
