import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kaito.runtime import Manager, ObjectMeta
from kaito.runtime.errors import Retry
from kaito.runtime.testing import World

from dns_operator.api import DnsRecord, DnsRecordSpec, definition
from dns_operator.controller import controller
from dns_operator.provider import Provider

DEPLOY = Path(__file__).parents[1] / "deploy"
ACCOUNT = "system:serviceaccount:dns-operator:dns-operator"
NAMES = [f"host-{number}" for number in range(12)]


class FlappingProvider(Provider):
    """The provider in memory, which fails with a probability."""

    def __init__(self) -> None:
        self.chance = random.Random(1)
        self.failing = 0.0
        self.records: dict[str, str] = {}
        self.calls = 0

    def _flap(self) -> None:
        self.calls += 1
        if self.chance.random() < self.failing:
            raise self.chance.choice([OSError("reset"), TimeoutError(), Retry(30, "the DNS provider answers 503")])

    async def get(self, host: str) -> str | None:
        self._flap()
        return self.records.get(host)

    async def put(self, host: str, address: str) -> None:
        self._flap()
        self.records[host] = address

    async def delete(self, host: str) -> None:
        self._flap()
        self.records.pop(host, None)


@pytest.fixture
def dns() -> FlappingProvider:
    return FlappingProvider()


@asynccontextmanager
async def running(world: World, dns: FlappingProvider, user: str = "") -> AsyncGenerator[None]:
    @asynccontextmanager
    async def lifespan(manager: Manager) -> AsyncGenerator[Provider]:
        yield dns

    if not user:
        world.install(definition())
    async with world.manager(controller, lifespan=lifespan, user=user):
        yield


def record(name: str, address: str = "192.0.2.1") -> DnsRecord:
    return DnsRecord(metadata=ObjectMeta(name=name), spec=DnsRecordSpec(host=name, address=address))


async def test_records_are_published_through_an_api_that_flaps(world: World, dns: FlappingProvider) -> None:
    async with running(world, dns):
        dns.failing = 1 / 3
        for name in NAMES:
            world.put(record(name))
        await world.advance(180)
        assert dns.records == dict.fromkeys(NAMES, "192.0.2.1")


async def test_a_change_at_the_provider_is_repaired(world: World, dns: FlappingProvider) -> None:
    async with running(world, dns):
        world.put(record("a"))
        await world.settle()
        dns.records["a"] = "203.0.113.9"
        await world.advance(70)
        assert dns.records == {"a": "192.0.2.1"}
        assert world.get(DnsRecord, "a").status.published_address == "192.0.2.1"


async def test_only_polls_call_the_provider_while_nothing_changes(world: World, dns: FlappingProvider) -> None:
    async with running(world, dns):
        world.put(record("a"))
        await world.settle()
        before = dns.calls
        world.clear_requests()
        await world.advance(600)
        assert dns.calls - before <= 12
        assert world.count("PATCH") == 0


async def test_an_outage_is_reported_and_its_end(world: World, dns: FlappingProvider) -> None:
    async with running(world, dns):
        world.put(record("a"))
        await world.settle()
        dns.failing = 1.0
        await world.advance(600)
        assert world.condition(DnsRecord, "a", "Ready").reason == "Unreachable"
        dns.failing = 0.0
        await world.advance(600)
        assert world.condition(DnsRecord, "a", "Ready").reason == "Published"


async def test_a_deleted_record_is_deleted_at_the_provider(world: World, dns: FlappingProvider) -> None:
    async with running(world, dns):
        world.put(record("a"))
        await world.settle()
        dns.failing = 1 / 2
        world.delete(DnsRecord, "a")
        await world.advance(600)
        assert world.find(DnsRecord, "a") is None
        assert dns.records == {}


async def test_the_roles_are_sufficient(world: World, dns: FlappingProvider) -> None:
    world.apply(DEPLOY)
    async with running(world, dns, user=ACCOUNT):
        await world.settle()
        assert dns.records == {"shop.example.com": "192.0.2.1"}
        [name] = [each.name for each in world.list(DnsRecord)]
        world.delete(DnsRecord, name)
        await world.settle()
        assert dns.records == {}
