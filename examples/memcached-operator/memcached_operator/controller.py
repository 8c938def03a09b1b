"""Reconciles Memcacheds, and deletes them in order."""

from kaito.runtime import Again, Controller, ObjectKey, Request, View, changed
from kaito.runtime.kinds import Deployment, Secret, Service

from memcached_operator.api import Memcached
from memcached_operator.manifests import deployment_for, service_for


async def reconcile(request: Request[Memcached]) -> None:
    """Applies the Service and the Deployment, and reports how many servers are ready."""
    memcached, api = request.object, request.api
    async with request.status() as status:
        version = ""
        if name := memcached.spec.auth_secret:
            secret = await api.find(Secret, name, memcached.namespace)
            if secret is None:
                status.condition("Ready", holds=False, reason="SecretMissing", message=f"Secret {name} does not exist")
                return  # the creation of the Secret triggers the next reconcile
            version = secret.metadata.resource_version
        await api.ensure(service_for(memcached), owner=memcached)
        deployment = await api.ensure(deployment_for(memcached, version), owner=memcached)

        wanted, ready = memcached.spec.size, deployment.status.ready_replicas
        observed = deployment.status.observed_generation == deployment.metadata.generation
        is_ready = observed and ready >= wanted
        status.set(ready_replicas=ready)
        reason = "AllReady" if is_ready else "Scaling"
        if status.condition("Ready", is_ready, reason, f"{ready} of {wanted} servers are ready"):
            request.event("Normal", reason, f"{ready} of {wanted} servers are ready")


async def clean_up(request: Request[Memcached]) -> Again | None:
    """Deletes the Service first, and allows the deletion of the servers after the drain time."""
    memcached, api = request.object, request.api
    for service in await api.list(Service, namespace=memcached.namespace, owned_by=memcached):
        await api.delete(service)
    deleted_at = memcached.metadata.deletion_timestamp
    elapsed = (request.clock.now() - deleted_at).total_seconds() if deleted_at else 0.0
    left = memcached.spec.drain_seconds - elapsed
    return Again(left, "draining clients") if left > 0 else None


def using(secret: Secret, view: View) -> list[ObjectKey]:
    """Returns the keys of the Memcacheds that use a Secret."""
    return [m.key for m in view.list(Memcached, namespace=secret.namespace) if m.spec.auth_secret == secret.name]


controller = (
    Controller(Memcached, reconcile, workers=4, deadline=60, when=changed("generation"))
    .owns(Deployment, when=changed("generation", "status.readyReplicas", "status.observedGeneration"))
    .owns(Service, when=changed("spec"))
    .watches(Secret, to=using, only="metadata")  # only the version is needed: no password is kept in memory
    .finalizes("cache.example.com/drain", clean_up)
)
