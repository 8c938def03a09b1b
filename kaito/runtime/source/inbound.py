"""`Inbound`: HTTP calls from outside of the cluster that trigger reconciles, such as the webhooks of a provider.

    async def changed(call: InboundCall) -> list[ObjectKey]:
        zone = call.json()["zone"]
        return [record.key for record in call.view.list(Record, index=by_zone(zone))]

    hook = Inbound("/hooks/dns", changed, authenticate=lambda call: is_signed(call, secret, "x-signature"))
    controller = Controller(Record, reconcile).receives(hook)

The manager serves the path. A call is only a hint: the reconcile reads the state of the provider itself. The response
is 202, or 503 while this replica cannot reconcile (its caches are not synced, or it is not the leader), so that the
sender repeats the call and no change is lost.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar, final

import msgspec

from kaito.runtime.cache.view import View
from kaito.runtime.errors import ConfigurationError, KaitoRuntimeError
from kaito.runtime.lifespan import State, StateProvider, state_of
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectKey
from kaito.runtime.metrics import Metrics
from kaito.runtime.workqueue import Cause, WorkQueue

T = TypeVar("T")

MAX_BYTES: Final = 256 * 1024
MAX_CALLS: Final = 16
MAX_PENDING: Final = 10_000
TIMEOUT_SECONDS: Final = 5.0
RETRY_AFTER_SECONDS: Final = 5
"""`Retry-After` of 429 and 503."""

Port = Literal["metrics", "health"]

_log = get_logger(__name__)


class BadCall(KaitoRuntimeError):
    """The call is malformed: the response is 400 with the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundCall:
    """One HTTP call."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    query: Mapping[str, str]
    body: bytes
    """As it was sent; a compressed body is not decompressed."""
    view: View
    """Reads of the cache."""
    lifespan_state: State = None

    def json(self) -> Any:
        """Decodes the body.

        Raises:
            BadCall: it is not JSON; the response is 400.
        """
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = "the body is not JSON"
            raise BadCall(message) from error

    def lifespan(self, kind: type[T]) -> T:
        """Returns the state of the manager's lifespan, which has to be of this type.

        Raises:
            ConfigurationError: the manager has no lifespan, or it yields another type.
        """
        return state_of(self.lifespan_state, kind)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response. As result of the function it can carry keys, for senders that expect an answer to a challenge."""

    status: int = 202
    text: str = ""
    keys: Iterable[ObjectKey] = ()
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


InboundKeys: TypeAlias = Iterable[ObjectKey] | ObjectKey | Reply | None
InboundFunction: TypeAlias = Callable[[InboundCall], InboundKeys | Awaitable[InboundKeys]]
"""Returns the keys to reconcile."""

Authenticate: TypeAlias = Callable[[InboundCall], bool | Awaitable[bool]]
"""Returns whether the call is authentic: whether it comes from the expected sender."""


def is_signed(call: InboundCall, secret: bytes, header: str, *, prefix: str = "sha256=") -> bool:
    """Returns whether a header has the HMAC-SHA256 of the body in hexadecimal digits, compared in constant time."""
    wanted = prefix + hmac.new(secret, call.body, hashlib.sha256).hexdigest()
    return bool(secret) and hmac.compare_digest(wanted.encode(), call.headers.get(header.lower(), "").encode())


@final
class Inbound:
    """HTTP calls that trigger reconciles.

    Args:
        path: the path, for example `/hooks/dns`; as in `Manager.serve`.
        function: returns the keys to reconcile, sync or async. Keys of objects that are not in the cache are ignored.
            An exception is a 500 without details, `BadCall` a 400 with its message.
        authenticate: returns whether the call is accepted, before `function` runs; otherwise the response is 401. Calls
            come from outside, so compare a signature or a secret in constant time (`is_signed`).
        on: the manager's port; a secured metrics port authorizes callers, too. TLS ends in front of it.
        methods: accepted HTTP methods.
        max_bytes: larger bodies are 413.
        max_calls: calls at the same time; further ones are 429.
        max_pending: ready keys of the controller from which on calls are 429.
        timeout: seconds for a call, its body included; then the response is 503.

    Raises:
        ConfigurationError: a limit that cannot work, or a function that cannot be called.
    """

    def __init__(
        self,
        path: str,
        function: InboundFunction,
        *,
        authenticate: Authenticate,
        on: Port = "health",
        methods: Iterable[str] = ("POST",),
        max_bytes: int = MAX_BYTES,
        max_calls: int = MAX_CALLS,
        max_pending: int = MAX_PENDING,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.path = path
        self.function = function
        self.authenticate = authenticate
        self.on: Port = on
        self.methods: frozenset[str] = frozenset(method.upper() for method in methods)
        self.max_bytes = max_bytes
        self.max_calls = max_calls
        self.max_pending = max_pending
        self.timeout = timeout
        for name, limit in (("max_bytes", max_bytes), ("max_calls", max_calls), ("max_pending", max_pending)):
            if limit < 1:
                self._reject(f"{name}={limit}: at least 1 is needed")
        if not 0 < timeout < float("inf"):
            self._reject(f"timeout={timeout}: a number of seconds above 0 is needed")
        if isinstance(methods, str):
            self._reject(f"methods={methods!r}: write methods=[{methods!r}]")
        functions: tuple[object, ...] = (function, authenticate)
        if not all(callable(each) for each in functions):
            self._reject("function and authenticate= are functions of the call")

    def _reject(self, problem: str) -> None:
        message = f"inbound {self.path}: {problem}"
        raise ConfigurationError(message)

    def __repr__(self) -> str:
        return f"Inbound({self.path})"


class Worked(Protocol):
    """A controller's engine, as far as calls need it."""

    name: str
    queue: WorkQueue[ObjectKey]

    @property
    def ready(self) -> bool:
        """Whether its sources are synced."""
        ...

    @property
    def working(self) -> bool:
        """Whether its workers run."""
        ...

    def is_held(self, key: ObjectKey) -> bool:
        """Whether this replica reconciles the key."""
        ...


@final
class InboundEndpoint:
    """An inbound source of a manager: handles calls.

    Args:
        inbound: the declaration.
        engine: the controller's.
        is_cached: whether the cache has the controller's object.
        view: reads of the cache.
        state: the state of the manager's lifespan.
        metrics: counts the calls.
    """

    def __init__(
        self,
        inbound: Inbound,
        engine: Worked,
        *,
        is_cached: Callable[[ObjectKey], bool],
        view: View,
        state: StateProvider,
        metrics: Metrics,
    ) -> None:
        self.inbound = inbound
        self.path: str = inbound.path
        self.on: Port = inbound.on
        self._engine = engine
        self._is_cached = is_cached
        self._view = view
        self._state = state
        self._metrics = metrics
        self._calls = 0

    async def handle(
        self,
        method: str,
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        read: Callable[[int], Awaitable[bytes | None]],
    ) -> Reply:
        """Handles a call.

        Args:
            method: the HTTP method.
            headers: names in any case.
            query: parameters of the URL.
            read: reads the body up to a number of bytes; None if it is larger.
        """
        reply = self._refusal(method)
        if reply is None:
            self._calls += 1
            try:
                reply = await self._limited(method, {name.lower(): headers[name] for name in headers}, query, read)
            finally:
                self._calls -= 1
        path = self.inbound.path
        self._metrics.inbound_calls.labels(self._engine.name, path, str(reply.status)).inc()
        return reply

    def _refusal(self, method: str) -> Reply | None:
        if method not in self.inbound.methods:
            return Reply(405, "method not allowed", headers={"allow": ", ".join(sorted(self.inbound.methods))})
        if not self._engine.ready:
            return _repeat_later("caches are not synced")
        if not self._engine.working:
            return _repeat_later("this replica is not the leader")
        if self._engine.queue.closed:
            return _repeat_later("stopping")
        if self._calls >= self.inbound.max_calls or len(self._engine.queue) >= self.inbound.max_pending:
            return _repeat_later("too many calls", status=429)
        return None

    async def _limited(
        self,
        method: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        read: Callable[[int], Awaitable[bytes | None]],
    ) -> Reply:
        limit = asyncio.timeout(self.inbound.timeout)
        try:
            async with limit:
                body = await read(self.inbound.max_bytes)
                if body is None:
                    return Reply(413, f"the body is larger than {self.inbound.max_bytes} bytes")
                call = InboundCall(
                    method=method,
                    path=self.inbound.path,
                    headers=headers,
                    query=query,
                    body=body,
                    view=self._view,
                    lifespan_state=self._state(),
                )
                return await self._answer(call)
        except BadCall as error:
            return Reply(400, str(error))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():  # the caller has gone, or the process stops
                raise
            _log.error(
                "inbound call failed", path=self.inbound.path, error="it awaited something cancelled", exc_info=error
            )
            return Reply(500, "internal error")
        except Exception as error:  # noqa: BLE001 - foreign code; details of its errors are not for the sender
            if limit.expired():
                _log.error("inbound call timed out", path=self.inbound.path, seconds=self.inbound.timeout)
                return _repeat_later("timed out")
            _log.error("inbound call failed", path=self.inbound.path, error=str(error), exc_info=error)
            return Reply(500, "internal error")

    async def _answer(self, call: InboundCall) -> Reply:
        accepted = self.inbound.authenticate(call)
        if isawaitable(accepted):
            accepted = await accepted
        if accepted is not True:
            return Reply(401, "not authenticated")
        result = self.inbound.function(call)
        found = await result if isawaitable(result) else result
        reply = found if isinstance(found, Reply) else Reply(keys=_listed(found))
        if self._engine.queue.closed:  # meanwhile: it would drop the keys
            return _repeat_later("stopping")
        keys = [key for key in dict.fromkeys(_checked(each) for each in reply.keys) if self._is_cached(key)]
        held = [key for key in keys if self._engine.is_held(key)]
        for key in held:
            cause = Cause("", str(key), "inbound", self.inbound.path)
            self._engine.queue.add(key, cause=cause)
        if len(held) < len(keys):
            return _repeat_later("another replica reconciles the object")
        return reply


def _repeat_later(text: str, *, status: int = 503) -> Reply:
    return Reply(status, text, headers={"retry-after": str(RETRY_AFTER_SECONDS)})


def _listed(found: Iterable[ObjectKey] | ObjectKey | None) -> Iterable[ObjectKey]:
    if found is None:
        return ()
    return (found,) if isinstance(found, ObjectKey) else found


def _checked(key: object) -> ObjectKey:
    if not isinstance(key, ObjectKey):
        message = f"an inbound function returned {key!r}: return ObjectKeys (`obj.key`), a list of them, or None"
        raise TypeError(message)
    return key
