"""Issues and rotates the webhook certificate, shared with the other replicas in a Secret.

Every replica runs it. Each sync reads the Secret, computes its next state (`plan`), writes it if it differs (by
optimistic locking one replica writes and the others read its result), writes the CA bundle into the configurations, and
only then serves with the new certificate.
"""

import asyncio
import base64
import random
from collections.abc import Sequence
from typing import Any, final

import msgspec

from kaito.runtime.certs.authority import KeyPair
from kaito.runtime.certs.injection import CABundleInjector
from kaito.runtime.certs.plan import CertificateState, next_state
from kaito.runtime.certs.serving import ServingContext
from kaito.runtime.client import Client
from kaito.runtime.clock import Clock
from kaito.runtime.errors import AlreadyExists, Conflict, KaitoRuntimeError
from kaito.runtime.kinds import Secret
from kaito.runtime.logging import get_logger
from kaito.runtime.meta import ObjectMeta

POLL_SECONDS = 10.0
"""Interval of the syncs; every step of a rotation takes much longer."""

WRITE_ATTEMPTS = 5
"""Attempts to write the Secret while other replicas write it, too."""

AUTHORITIES_KEY = "authorities.json"
"""Key of the Secret with all CAs and their private keys; `ca.crt`, `tls.crt` and `tls.key` are for other readers."""

_log = get_logger(__name__)


@final
class CertificateRotator:
    """Issues certificates for a serving context. A `Runnable`.

    Args:
        client: live client, not fenced.
        serving: the serving context.
        injector: writes the CA bundle.
        secret: name of the Secret.
        namespace: its namespace.
        names: host names and addresses of the server.
        clock: wall time.
        rng: spreads the syncs of the replicas.
    """

    name = "certificate-rotator"
    leader_elected = False

    def __init__(
        self,
        client: Client,
        serving: ServingContext,
        injector: CABundleInjector,
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
        """Syncs at an interval, until cancelled. Failures are logged and retried; the previous certificate stays."""
        while True:
            try:
                await self.sync()
            except KaitoRuntimeError as error:
                self._serving.record_failure(f"secret {self._namespace}/{self._secret}: {error}")
                _log.warning("sync of the webhook certificate failed", error=str(error))
            await asyncio.sleep(POLL_SECONDS * (0.8 + 0.4 * self._rng.random()))

    async def sync(self) -> None:
        """Brings the Secret, the configurations and the serving context up to date.

        Raises:
            ApiError: the API server rejects a request.
            TransportError: the API server cannot be reached.
        """
        state = await self._ensure_secret()
        await self._injector.inject(state.bundle)
        if state.leaf is not None and self._serving.load(state.leaf):
            _log.info("serving certificate loaded", secret=self._secret, expires=str(state.leaf.expires_at))

    async def _ensure_secret(self) -> CertificateState:
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
                await asyncio.sleep(0.1 * attempt * self._rng.random())  # another replica was faster: read its result
            else:
                return wanted
        raise AssertionError  # pragma: no cover -- the last attempt returns or raises

    async def _write(self, stored: Secret | None, state: CertificateState) -> None:
        data = write_state(state)
        if stored is None:
            metadata = ObjectMeta(name=self._secret, namespace=self._namespace)
            await self._client.create(Secret.model_validate({"metadata": metadata, "type": "Opaque", "data": data}))
        else:
            await self._client.update(stored.evolve(data=data))
        _log.info("webhook certificates renewed", secret=self._secret, authorities=len(state.authorities))


def read_state(secret: Secret | None) -> CertificateState:
    """Decodes the state in a Secret; an invalid state counts as absent and is replaced."""
    document: dict[str, Any] = secret.to_dict() if secret is not None else {}
    data: dict[str, str] = document.get("data") or {}
    try:
        entries: list[dict[str, str]] = msgspec.json.decode(
            base64.b64decode(data.get(AUTHORITIES_KEY, "")) or b"[]", type=list[dict[str, str]]
        )
        authorities = tuple(KeyPair(entry["certificate"].encode(), entry["key"].encode()) for entry in entries)
        leaf = KeyPair(base64.b64decode(data.get("tls.crt", "")), base64.b64decode(data.get("tls.key", "")))
        _ = [authority.expires_at for authority in authorities], leaf.certificate and leaf.expires_at
    except (ValueError, KeyError, msgspec.MsgspecError) as error:
        _log.warning("Secret of the webhook certificate is not valid, issuing a new one", error=str(error))
        return CertificateState()
    return CertificateState(authorities, leaf if leaf.certificate and leaf.key else None)


def write_state(state: CertificateState) -> dict[str, str]:
    """Encodes a state as the data of a Secret."""
    entries = [{"certificate": each.certificate.decode(), "key": each.key.decode()} for each in state.authorities]
    values = {AUTHORITIES_KEY: msgspec.json.encode(entries), "ca.crt": state.bundle}
    if state.leaf is not None:
        values |= {"tls.crt": state.leaf.certificate, "tls.key": state.leaf.key}
    return {name: base64.b64encode(value).decode() for name, value in values.items()}
