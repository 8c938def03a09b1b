"""Makes and rotates the webhook's certificate, together with the other replicas, in one Secret.

Every replica runs it. Each round: read the Secret, compute what should be there (`plan`), write it if that differs
(the optimistic lock picks one writer, the others read what it wrote), put the CA bundle into the configurations, and
only then serve with the new certificate.
"""

import asyncio
import base64
import random
from collections.abc import Sequence
from typing import Any, final

import msgspec

from kaito.runtime.certs.authority import Pair
from kaito.runtime.certs.injection import Injector
from kaito.runtime.certs.plan import State, next_state
from kaito.runtime.certs.serving import ServingContext
from kaito.runtime.client import Client
from kaito.runtime.clock import Clock
from kaito.runtime.errors import AlreadyExists, Conflict, KaitoRuntimeError
from kaito.runtime.kinds import Secret
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectMeta

POLL_SECONDS = 10.0
"""Between two rounds; all of a rotation's steps are far longer."""

WRITE_ATTEMPTS = 5
"""Tries to write the Secret while other replicas do the same."""

AUTHORITIES_KEY = "authorities.json"
"""Secret key of all CAs with their keys; `ca.crt`, `tls.crt` and `tls.key` are there for people and other readers."""

_log = get_logger(__name__)


@final
class CertificateKeeper:
    """Keeps a serving context supplied. A `Runnable`.

    Args:
        client: live client, not fenced.
        serving: what to supply.
        injector: tells the API server about the CA.
        secret: name of the Secret.
        namespace: its namespace.
        names: host names and addresses of the server.
        clock: wall time.
        rng: spreads the rounds of replicas.
    """

    name = "certificate-keeper"
    leader_elected = False

    def __init__(
        self,
        client: Client,
        serving: ServingContext,
        injector: Injector,
        *,
        secret: str,
        namespace: str,
        names: Sequence[str],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._client = client
        self._serving = serving
        self._injector = injector
        self._secret = secret
        self._namespace = namespace
        self._names = list(names)
        self._clock = clock
        self._rng = rng

    async def run(self) -> None:
        """Round after round, until cancelled. Failures are told and tried again: the last certificate serves on."""
        while True:
            try:
                await self.sync()
            except KaitoRuntimeError as error:
                self._serving.failed(f"secret {self._namespace}/{self._secret}: {error}")
                _log.warning("webhook certificate not kept", error=str(error))
            await asyncio.sleep(POLL_SECONDS * (0.8 + 0.4 * self._rng.random()))

    async def sync(self) -> None:
        """One round.

        Raises:
            ApiError: the server refuses.
            TransportError: it does not answer.
        """
        state = await self._agree()
        await self._injector.inject(state.bundle)
        if state.leaf is not None and self._serving.load(state.leaf):
            _log.info("serving certificate loaded", secret=self._secret, expires=str(state.leaf.expires_at))

    async def _agree(self) -> State:
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            stored = await self._client.find(Secret, self._secret, self._namespace)
            state = read_state(stored)
            wanted = next_state(state, name=f"{self._secret} CA", names=self._names, now=self._clock.now())
            if wanted == state:
                return state
            try:
                await self._write(stored, wanted)
            except (Conflict, AlreadyExists):
                if attempt == WRITE_ATTEMPTS:
                    raise
                await asyncio.sleep(0.1 * attempt * self._rng.random())  # another replica was faster: see what it made
            else:
                return wanted
        raise AssertionError  # pragma: no cover -- the last attempt returns or raises

    async def _write(self, stored: Secret | None, state: State) -> None:
        data = write_state(state)
        if stored is None:
            metadata = ObjectMeta(name=self._secret, namespace=self._namespace)
            await self._client.create(Secret.model_validate({"metadata": metadata, "type": "Opaque", "data": data}))
        else:
            await self._client.update(stored.evolve(data=data))
        _log.info("webhook certificates renewed", secret=self._secret, authorities=len(state.authorities))


def read_state(secret: Secret | None) -> State:
    """The state in a Secret; what cannot be read counts as absent and is made anew."""
    document: dict[str, Any] = secret.to_dict() if secret is not None else {}
    data: dict[str, str] = document.get("data") or {}
    try:
        entries: list[dict[str, str]] = msgspec.json.decode(
            base64.b64decode(data.get(AUTHORITIES_KEY, "")) or b"[]", type=list[dict[str, str]]
        )
        authorities = tuple(Pair(entry["certificate"].encode(), entry["key"].encode()) for entry in entries)
        leaf = Pair(base64.b64decode(data.get("tls.crt", "")), base64.b64decode(data.get("tls.key", "")))
        _ = [authority.expires_at for authority in authorities], leaf.certificate and leaf.expires_at
    except (ValueError, KeyError, msgspec.MsgspecError) as error:
        _log.warning("the webhook's Secret is unreadable, making a new one", error=str(error))
        return State()
    return State(authorities, leaf if leaf.certificate and leaf.key else None)


def write_state(state: State) -> dict[str, str]:
    """The Secret's data for a state."""
    entries = [{"certificate": each.certificate.decode(), "key": each.key.decode()} for each in state.authorities]
    values = {AUTHORITIES_KEY: msgspec.json.encode(entries), "ca.crt": state.bundle}
    if state.leaf is not None:
        values |= {"tls.crt": state.leaf.certificate, "tls.key": state.leaf.key}
    return {name: base64.b64encode(value).decode() for name, value in values.items()}
