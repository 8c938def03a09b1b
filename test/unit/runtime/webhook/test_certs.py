"""Replicas rotate certificates together: no handshake fails, and the CA bundle is written first."""

import asyncio
import base64
import random
import ssl
from datetime import datetime, timedelta

import pytest

from kaito.runtime.certs import CABundleInjector, CertificateRotator, ServingContext, WebhookTarget
from kaito.runtime.certs.authority import CA_LIFETIME, LEAF_LIFETIME, new_authority, new_leaf
from kaito.runtime.certs.plan import OVERLAP, PROPAGATION, CertificateState, next_state
from kaito.runtime.certs.rotator import read_state
from kaito.runtime.client import Client
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import Forbidden
from kaito.runtime.kinds import (
    MutatingWebhookConfiguration,
    Secret,
    ValidatingWebhookConfiguration,
)
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.metrics import Metrics
from kaito.runtime.tasks import TaskScope
from kaito.runtime.testing import World

NAMES = ["op.default.svc", "op.default.svc.cluster.local"]
DAY = timedelta(days=1)


class JumpingClock:
    """The world's clock plus whole days, so that ten years pass in a test."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.offset = timedelta()

    def now(self) -> datetime:
        return self._world.now + self.offset


class Replica:
    def __init__(self, world: World, clock: JumpingClock, number: int) -> None:
        self.serving = ServingContext(Metrics())
        client = Client(world.transport(latency=0.01 * number), field_manager="op")
        injector = CABundleInjector(client, WebhookTarget("op", "default", ("127.0.0.1",)))
        self.keeper = CertificateRotator(
            client,
            self.serving,
            injector,
            secret="op-webhook-cert",
            namespace="default",
            names=NAMES,
            clock=clock,
            rng=random.Random(number),
        )


def configuration(name: str = "op") -> ValidatingWebhookConfiguration:
    def entry(entry_name: str, client_config: dict[str, object]) -> dict[str, object]:
        return {
            "name": f"{entry_name}.example.com",
            "clientConfig": client_config,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "rules": [],
        }

    service = {"name": "op", "namespace": "default", "path": "/validate"}
    return ValidatingWebhookConfiguration.model_validate(
        {
            "metadata": {"name": name},
            "webhooks": [
                entry("other", {"service": service | {"name": "other"}}),
                entry("ours", {"service": service}),
                entry("local", {"url": "https://127.0.0.1:9443/validate"}),
            ],
        }
    )


def bundles(world: World) -> list[bytes]:
    webhooks = world.get(ValidatingWebhookConfiguration, "op").webhooks
    return [base64.b64decode(webhook.client_config.ca_bundle or "") for webhook in webhooks]


def handshake(server: ssl.SSLContext, bundle: bytes, at: datetime) -> None:
    """A TLS handshake in memory, as the API server does it: trusting the bundle, checking the name.

    OpenSSL takes "now" from the machine, so the validity period is compared with `at` by hand.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=bundle.decode())
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    # X509_V_FLAG_NO_CHECK_TIME: the certificates are years away from the machine's clock
    client.verify_flags = ssl.VerifyFlags(client.verify_flags | 0x200000)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=NAMES[0])
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = ours.getpeercert()
    assert certificate is not None
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    begins = ssl.cert_time_to_seconds(str(certificate["notBefore"]))
    assert begins <= at.timestamp() < ends


@pytest.mark.slow("test_a_rotation_of_the_ca_takes_its_three_steps")
@pytest.mark.conformance(54)
async def test_ten_years_of_rotation_with_two_replicas_fail_no_handshake(world: World) -> None:
    world.put(configuration())
    clock = JumpingClock(world)
    replicas = [Replica(world, clock, number) for number in (1, 2)]
    rng = random.Random(7)
    authorities: set[bytes] = set()
    leaves: set[bytes] = set()
    for replica in replicas:
        await replica.keeper.sync()
    lagging = bundles(world)[1]
    for _ in range(240):
        # Every replica looks every few seconds, in any order; in between, the API server may be one round behind.
        for replica in rng.sample(replicas, 2):
            await replica.keeper.sync()
            for each in replicas:
                for bundle in (lagging, bundles(world)[1]):
                    handshake(each.serving.context, bundle, clock.now())
        lagging = bundles(world)[1]
        state = read_state(world.get(Secret, "op-webhook-cert"))
        authorities |= {each.certificate for each in state.authorities}
        assert state.leaf is not None
        leaves.add(state.leaf.certificate)
        assert len(state.authorities) <= 2
        clock.offset += rng.choice([timedelta(seconds=10), PROPAGATION, OVERLAP, 28 * DAY, 29 * DAY])
    assert clock.offset > CA_LIFETIME * 2 / 3
    assert len(authorities) == 2
    assert len(leaves) > 30


@pytest.mark.conformance(54)
async def test_a_rotation_of_the_ca_takes_its_three_steps(world: World) -> None:
    world.put(configuration())
    clock = JumpingClock(world)
    replicas = [Replica(world, clock, number) for number in (1, 2)]
    for replica in replicas:
        await replica.keeper.sync()
    [first] = read_state(world.get(Secret, "op-webhook-cert")).authorities
    clock.offset = CA_LIFETIME * 2 / 3 + DAY
    for replica in replicas:
        await replica.keeper.sync()  # both renewed their leaf many times in these years

    async def round_and_check() -> CertificateState:
        # The second replica lags by one whole round: what the first one wrote must not hurt it.
        await replicas[0].keeper.sync()
        for replica in replicas:
            handshake(replica.serving.context, bundles(world)[1], clock.now())
        await replicas[1].keeper.sync()
        for replica in replicas:
            handshake(replica.serving.context, bundles(world)[1], clock.now())
        return read_state(world.get(Secret, "op-webhook-cert"))

    state = await round_and_check()
    assert [each == first for each in state.authorities] == [True, False]
    assert state.issuer == first
    second = state.authorities[1]
    clock.offset += PROPAGATION + timedelta(seconds=1)
    state = await round_and_check()
    assert state.issuer == second
    assert len(state.authorities) == 2
    clock.offset += OVERLAP + timedelta(seconds=1)
    state = await round_and_check()
    assert state.authorities == (second,)
    assert bundles(world)[1] == second.certificate


async def test_replicas_that_start_together_agree(world: World) -> None:
    clock = JumpingClock(world)
    replicas = [Replica(world, clock, number) for number in range(4)]
    async with asyncio.TaskGroup() as group:
        for replica in replicas:
            group.create_task(replica.keeper.sync())
    await replicas[0].keeper.sync()
    state = read_state(world.get(Secret, "op-webhook-cert"))
    for replica in replicas:
        handshake(replica.serving.context, state.bundle, clock.now())
        assert replica.serving.check(clock.now()) is None


async def test_only_our_entries_are_written_and_a_stripped_bundle_comes_back(world: World) -> None:
    world.put(configuration())
    mutating = configuration().to_dict()
    world.put(
        MutatingWebhookConfiguration.model_validate({"metadata": {"name": "op"}, "webhooks": mutating["webhooks"]})
    )
    clock = JumpingClock(world)
    replica = Replica(world, clock, 1)
    await replica.keeper.sync()
    state = read_state(world.get(Secret, "op-webhook-cert"))
    assert bundles(world) == [b"", state.bundle, state.bundle]
    assert world.get(MutatingWebhookConfiguration, "op").webhooks[1].client_config.ca_bundle
    world.put(configuration())  # as `kubectl apply` of a manifest without bundles would
    await replica.keeper.sync()
    assert bundles(world) == [b"", state.bundle, state.bundle]
    world.clear_requests()
    await replica.keeper.sync()
    assert world.count("PATCH") == 0


async def test_a_missing_permission_is_told_and_waited_for(world: World) -> None:
    world.put(configuration())
    replica = Replica(world, JumpingClock(world), 1)
    fault = world.fail_next("GET", Secret, status=403, message="secrets is forbidden", times=None)
    with pytest.raises(Forbidden):
        await replica.keeper.sync()
    async with TaskScope("test") as scope:
        scope.spawn(replica.keeper.run(), name="keeper")
        await asyncio.sleep(1)
        assert "secrets is forbidden" in (replica.serving.check(world.now) or "")
        world.server.faults.remove(fault)
        await replica.serving.wait_ready()
        assert monotonic() < 30


async def test_a_broken_secret_is_made_anew(world: World) -> None:
    world.put(Secret(metadata=ObjectMeta(name="op-webhook-cert"), data={"tls.crt": "bm9uc2Vuc2U="}))
    replica = Replica(world, JumpingClock(world), 1)
    await replica.keeper.sync()
    assert replica.serving.check(world.now) is None


def test_names_are_added_at_once_and_kept_until_the_next_renewal() -> None:
    now = datetime.now().astimezone()
    first = next_state(CertificateState(), name="ca", names=["a.svc"], now=now)
    second = next_state(first, name="ca", names=["b.svc"], now=now)
    assert second.leaf is not None
    assert second.leaf.names() == {"a.svc", "b.svc"}
    assert next_state(second, name="ca", names=["a.svc"], now=now) == second
    later = next_state(second, name="ca", names=["b.svc"], now=now + LEAF_LIFETIME)
    assert later.leaf is not None
    assert later.leaf.names() == {"b.svc"}


def next_of(state: CertificateState, now: datetime) -> CertificateState:
    return next_state(state, name="ca", names=["op.default.svc"], now=now)


def served(state: CertificateState, now: datetime) -> None:
    assert state.leaf is not None
    assert state.issuer is not None
    assert state.issuer.parsed.not_valid_before_utc <= now
    serving = ServingContext(Metrics())
    serving.load(state.leaf)
    handshake(serving.context, state.bundle, now)


def test_certificates_of_a_clock_that_was_ahead_are_replaced() -> None:
    now, day = datetime.now().astimezone(), timedelta(days=1)
    corrected = next_of(next_of(CertificateState(), now + day), now)
    served(corrected, now)
    assert next_of(corrected, now) == corrected
    later = next_of(corrected, now + OVERLAP)
    assert len(later.authorities) == 1
    served(later, now + OVERLAP)
    assert next_of(later, now + 2 * day) == later

    old = next_of(CertificateState(), now - 10 * day)
    renewed = next_of(CertificateState(old.authorities), now + day)
    again = next_of(renewed, now)
    assert again.authorities == old.authorities, "the CA is valid, and API servers trust it"
    served(again, now)


def test_leaves_are_for_servers_and_carry_names_and_addresses() -> None:
    now = datetime.now().astimezone()
    authority = new_authority("ca", now)
    leaf = new_leaf(authority, ["op.default.svc", "127.0.0.1"], now)
    assert leaf.names() == {"op.default.svc", "127.0.0.1"}
    assert leaf.is_signed_by(authority)
    assert not leaf.is_signed_by(new_authority("ca", now))
    assert not leaf.is_due(now + LEAF_LIFETIME / 2)
    assert leaf.is_due(now + LEAF_LIFETIME * 0.67)
