"""What the client sends again, how long it waits, and what it never repeats."""

import asyncio
from dataclasses import dataclass, field

import pytest

from kaito.apiserver.faults import Fault
from kaito.runtime.client import Client, MergePatch
from kaito.runtime.clock import monotonic
from kaito.runtime.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    NotLeader,
    RequestTimeout,
    ServerError,
    TooManyRequests,
    TransportError,
)
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.testing import World


@dataclass
class Watcher:
    """A request observer that writes down what it hears."""

    finished_codes: list[str] = field(default_factory=list[str])
    retried_codes: list[str] = field(default_factory=list[str])
    waited: list[float] = field(default_factory=list[float])
    sizes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def attempts(self, method: str) -> int:
        return sum(code.startswith(f"{method} ") for code in self.finished_codes)

    def finished(self, *, method: str, host: str, code: str, seconds: float, sent: int, received: int) -> None:
        self.finished_codes.append(f"{method} {code}")
        self.sizes.append((sent, received))

    def retried(self, *, method: str, host: str, code: str) -> None:
        self.retried_codes.append(f"{method} {code}")

    def limited(self, *, method: str, host: str, seconds: float) -> None:
        self.waited.append(seconds)

    def dated(self, date: str, seconds: float) -> None:
        """Not tested here."""


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
async def client(world: World, watcher: Watcher) -> Client:
    return Client(world.transport(), field_manager="test", observer=watcher)


def config(name: str = "a", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


@pytest.mark.conformance("client-01")
@pytest.mark.parametrize(
    ("status", "error"),
    [(403, Forbidden), (404, NotFound), (409, Conflict), (410, Gone), (422, Invalid), (429, TooManyRequests)],
)
@pytest.mark.parametrize("path", ["typed", "raw"])
async def test_client_01_an_error_status_is_the_typed_error_and_never_repeated(
    client: Client, world: World, status: int, error: type[ApiError], path: str
) -> None:
    world.fail_next(status=status, message="because", times=None)
    typed = client.get(ConfigMap, "a", "default")
    raw = client.raw("GET", "/api/v1/namespaces/default/configmaps/a")
    requested, other = (typed, raw) if path == "typed" else (raw, typed)
    other.close()
    with pytest.raises(error) as caught:
        await requested
    assert (caught.value.code, caught.value.message) == (status, "because")
    assert caught.value.reason
    assert world.count() == 1


@pytest.mark.conformance("client-01")
async def test_client_01_invalid_names_the_fields(client: Client) -> None:
    with pytest.raises(Invalid) as caught:
        await client.create(config("Not A Name"))
    assert caught.value.causes[0]["field"] == "metadata.name"
    assert caught.value.details["kind"]


async def test_a_read_is_retried_after_three_server_errors(client: Client, world: World, watcher: Watcher) -> None:
    world.put(config())
    world.fail_next("GET", status=503, times=3)
    started = monotonic()
    assert (await client.get(ConfigMap, "a", "default")).name == "a"
    assert watcher.finished_codes == ["GET 503"] * 3 + ["GET 200"]
    assert watcher.retried_codes == ["GET 503"] * 3
    assert 0.3 <= monotonic() - started <= 3.0


async def test_a_read_gives_up_after_three_repetitions(client: Client, world: World) -> None:
    world.fail_next("GET", status=500, times=None)
    with pytest.raises(ServerError):
        await client.get(ConfigMap, "a", "default")
    assert world.count() == 4


async def test_apply_survives_server_errors_and_lost_answers(client: Client, world: World, watcher: Watcher) -> None:
    world.fail_next("PATCH", status=500)
    world.fail_next("PATCH", drop_connection=True).skip = 1
    assert (await client.apply(config(k="v"))).data == {"k": "v"}
    assert watcher.attempts("PATCH") == 3


@pytest.mark.parametrize("trouble", ["500", "lost"])
async def test_a_patch_is_never_repeated(client: Client, world: World, watcher: Watcher, trouble: str) -> None:
    made = await client.create(config(n="0"))
    world.fail_next("PATCH", status=500 if trouble == "500" else 0, drop_connection=trouble == "lost")
    with pytest.raises((ServerError, TransportError)):
        await client.patch(made, MergePatch({"data": {"n": "1"}}))
    assert watcher.attempts("PATCH") == 1


async def test_update_and_delete_repeat_lost_answers_but_not_server_errors(
    client: Client, world: World, watcher: Watcher
) -> None:
    made = await client.create(config(n="0"))
    world.fail_next("PUT", status=500)
    with pytest.raises(ServerError):
        await client.update(made.evolve(data={"n": "1"}))
    assert watcher.attempts("PUT") == 1
    world.fail_next("DELETE", drop_connection=True)
    assert await client.delete(made) is False  # the lost request had done it, and no other object was touched
    assert watcher.attempts("DELETE") == 2


async def test_a_lost_update_that_was_done_shows_as_conflict(client: Client, world: World) -> None:
    made = await client.create(config(n="0"))
    world.fail_next("PUT", drop_connection=True)
    with pytest.raises(Conflict):
        await client.update(made.evolve(data={"n": "1"}))
    assert world.get(ConfigMap, "a").data == {"n": "1"}


async def test_a_lost_create_that_was_done_is_recognized_as_ours(
    client: Client, world: World, watcher: Watcher
) -> None:
    world.fail_next("POST", drop_connection=True)
    made = await client.create(config(k="v").with_metadata(labels={"mine": "yes"}))
    assert made.uid == world.get(ConfigMap, "a").uid
    assert watcher.attempts("POST") == 2


async def test_a_create_with_a_lost_response_does_not_return_the_object_of_another_client(
    client: Client, world: World
) -> None:
    world.put(config(k="theirs"))
    world.server.inject(Fault(method="POST", drop_connection=True, times=1))
    with pytest.raises(AlreadyExists):
        await client.create(config(k="ours"))
    assert world.get(ConfigMap, "a").data == {"k": "theirs"}


async def test_a_create_with_a_generated_name_is_never_repeated(client: Client, world: World) -> None:
    world.fail_next("POST", drop_connection=True)
    with pytest.raises(TransportError):
        await client.create(ConfigMap(metadata=ObjectMeta(generate_name="run-", namespace="default")))
    assert len(world.list(ConfigMap, namespace="default")) == 1


async def test_retry_after_is_honored_for_any_verb(client: Client, world: World) -> None:
    world.fail_next("POST", status=429, retry_after=2)
    started = monotonic()
    await client.create(config())
    assert monotonic() - started == pytest.approx(2.0)


async def test_retry_after_beyond_the_budget_is_the_callers(client: Client, world: World) -> None:
    world.fail_next("GET", status=429, retry_after=7)
    started = monotonic()
    with pytest.raises(TooManyRequests) as caught:
        await client.get(ConfigMap, "a", "default")
    assert caught.value.retry_after == 7
    assert monotonic() == started


async def test_all_waits_of_one_call_stay_within_five_seconds(client: Client, world: World) -> None:
    world.fail_next("GET", status=429, retry_after=3, times=None)
    started = monotonic()
    with pytest.raises(TooManyRequests):
        await client.get(ConfigMap, "a", "default")
    assert monotonic() - started == pytest.approx(3.0)


@pytest.mark.conformance("client-03")
@pytest.mark.parametrize("verb", ["get", "create", "apply"])
async def test_client_03_a_call_without_a_response_fails_after_thirty_seconds(
    client: Client, world: World, watcher: Watcher, verb: str
) -> None:
    world.fail_next(hang=True, times=None)
    calls = {
        "get": lambda: client.get(ConfigMap, "a", "default"),
        "create": lambda: client.create(config()),
        "apply": lambda: client.apply(config()),
    }
    started = monotonic()
    with pytest.raises(RequestTimeout):
        await calls[verb]()
    assert monotonic() - started == pytest.approx(30.0)
    assert len(watcher.finished_codes) == 1


async def test_the_fence_is_checked_for_every_attempt_of_a_write_and_not_for_reads(
    client: Client, world: World, watcher: Watcher
) -> None:
    lost = False
    requested = 0

    def fence() -> None:
        nonlocal requested
        requested += 1
        if lost:
            message = "lease lost"
            raise NotLeader(message)

    fenced = client.fenced(fence)
    await fenced.find(ConfigMap, "a", "default")
    assert requested == 0
    world.fail_next("POST", status=429, retry_after=1)
    write = asyncio.Task(fenced.create(config()))
    await asyncio.sleep(0.5)
    lost = True  # between the first attempt and the second
    with pytest.raises(NotLeader):
        await write
    assert watcher.attempts("POST") == 1
    assert world.find(ConfigMap, "a") is None
    await client.create(config())  # the original is not fenced


async def test_the_limiter_spaces_requests_after_the_burst(world: World, watcher: Watcher) -> None:
    client = Client(world.transport(), field_manager="test", qps=2, burst=3, observer=watcher)
    started = monotonic()
    for _ in range(5):
        await client.find(ConfigMap, "a", "default")
    assert monotonic() - started == pytest.approx(1.0)
    assert watcher.waited == pytest.approx([0.5, 0.5])


async def test_sizes_of_bodies_are_observed(client: Client, watcher: Watcher) -> None:
    await client.create(config(k="v" * 100))
    sent, received = watcher.sizes[-1]
    assert sent > 100
    assert received > sent


async def test_a_transport_failure_is_observed_as_error(client: Client, world: World, watcher: Watcher) -> None:
    world.fail_next("POST", drop_connection=True, times=None)
    with pytest.raises(TransportError):
        await client.raw("POST", "/api/v1/namespaces/default/configmaps", body=config().to_dict())
    assert watcher.finished_codes == ["POST <error>"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_error(status: int, client: Client, world: World) -> None:
    world.fail_next("get", ConfigMap, status=status, message="elsewhere")
    with pytest.raises(ApiError, match="elsewhere") as refused:
        await client.find(ConfigMap, "a", "default")
    assert refused.value.code == status
    world.fail_next("create", ConfigMap, status=status, message="elsewhere")
    with pytest.raises(ApiError, match="elsewhere"):
        await client.create(config())
    assert world.find(ConfigMap, "a") is None
