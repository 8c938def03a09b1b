"""The example operators on a real kube-apiserver: each installs its definition and reconciles its sample."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cronjob_operator.api import CronJob
from cronjob_operator.controller import controller as cronjobs
from dns_operator.api import DnsRecord
from dns_operator.controller import controller as dns_records
from dns_operator.provider import Provider
from memcached_operator.api import Memcached
from memcached_operator.controller import controller as memcacheds

from hack.envtest import ControlPlane
from kaito.runtime import Manager
from kaito.runtime.client import apply_definitions
from kaito.runtime.kinds import CustomResourceDefinition, Deployment, Job, Service
from kaito.runtime.testing import workloads
from kaito.runtime.testing.envtest import RealCluster

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "examples"


def manifest(example: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / example / "deploy" / name).read_text(encoding="utf-8"))
    return found


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[RealCluster]:
    """A cluster with the definitions of the examples as they are committed."""
    definitions = [
        manifest(example, "crd.yaml") for example in ("cronjob-operator", "dns-operator", "memcached-operator")
    ]
    async with RealCluster(control_plane.kubeconfig) as cluster:
        await apply_definitions(cluster.client, definitions)
        yield cluster
        for each in definitions:
            await cluster.client.delete(CustomResourceDefinition.model_validate(each))


async def test_the_cronjob_operator_creates_the_job_of_a_missed_run(cluster: RealCluster) -> None:
    sample = CronJob.model_validate(manifest("cronjob-operator", "sample.yaml"))
    sample = sample.evolve(spec=sample.spec.evolve(schedule="* * * * *", starting_deadline_seconds=None))
    created = await cluster.client.create(sample.with_metadata(namespace=cluster.namespace))
    assert created.spec.job_template == sample.spec.job_template  # nothing is pruned
    missed = datetime.now(UTC) - timedelta(minutes=2)
    status = created.status.evolve(last_schedule_time=missed)
    await cluster.client.update_status(created.evolve(status=status))
    async with cluster.manager(cronjobs):

        async def started() -> bool:
            jobs = await cluster.client.list(Job, namespace=cluster.namespace)
            cron = await cluster.client.get(CronJob, created.name, cluster.namespace)
            return bool(jobs) and [each.uid for each in cron.status.active] == [job.uid for job in jobs]

        await cluster.eventually(started)
        [job] = await cluster.client.list(Job, namespace=cluster.namespace)
        security = job.spec.template.spec.security_context
        assert security is not None
        assert security.seccomp_profile is not None
        assert security.seccomp_profile.type == "RuntimeDefault"


async def test_the_memcached_operator_reports_ready_servers(cluster: RealCluster) -> None:
    sample = Memcached.model_validate(manifest("memcached-operator", "sample.yaml"))
    await cluster.client.create(sample.with_metadata(namespace=cluster.namespace))
    async with cluster.manager(*workloads(), memcacheds):

        async def ready() -> bool:
            found = await cluster.client.get(Memcached, sample.name, cluster.namespace)
            return found.status.ready_replicas == sample.spec.size

        await cluster.eventually(ready)
        assert await cluster.client.find(Service, sample.name, cluster.namespace) is not None
        assert await cluster.client.find(Deployment, sample.name, cluster.namespace) is not None


class ProviderInMemory(Provider):
    """The DNS provider without its HTTP API."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}

    async def get(self, host: str) -> str | None:
        return self.records.get(host)

    async def put(self, host: str, address: str) -> None:
        self.records[host] = address

    async def delete(self, host: str) -> None:
        self.records.pop(host, None)


async def test_the_dns_operator_publishes_and_deletes_a_record(cluster: RealCluster) -> None:
    provider = ProviderInMemory()

    @asynccontextmanager
    async def lifespan(_: Manager) -> AsyncGenerator[Provider]:
        yield provider

    sample = DnsRecord.model_validate(manifest("dns-operator", "sample.yaml")).with_metadata(
        namespace=cluster.namespace
    )
    created = await cluster.client.create(sample)
    async with cluster.manager(dns_records, lifespan=lifespan):

        async def published() -> bool:
            found = await cluster.client.get(DnsRecord, created.name, cluster.namespace)
            return found.status.published_address == sample.spec.address

        await cluster.eventually(published)
        assert provider.records == {sample.spec.host: sample.spec.address}
        await cluster.client.delete(created)

        async def deleted() -> bool:
            return await cluster.client.find(DnsRecord, created.name, cluster.namespace) is None

        await cluster.eventually(deleted)
        assert provider.records == {}
