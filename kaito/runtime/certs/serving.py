"""The TLS context of a server whose certificate changes while it serves.

Handshakes after `load` use the new certificate, connections made before it live on. A pair that cannot be used is
refused and the last good one stays.
"""

import asyncio
import ssl
import tempfile
from datetime import datetime
from pathlib import Path
from typing import final

from kaito.runtime.certs.authority import Pair
from kaito.runtime.metrics import Metrics


class UnusablePair(Exception):
    """Certificate and key do not fit together, or are none."""


@final
class ServingContext:
    """One server's TLS context.

    Args:
        metrics: counts reads of certificates.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.context: ssl.SSLContext = server_context()
        self._metrics = metrics
        self._loaded: Pair | None = None
        self._ready = asyncio.Event()
        self.trouble: str = "no certificate yet"
        """Why there is none, or why the newest was not taken; empty when all is well."""

    def load(self, pair: Pair) -> bool:
        """Serve with this pair from now on. False when it is the one already in use.

        Raises:
            UnusablePair: it cannot be used; the last one stays.
        """
        if pair == self._loaded:
            return False
        self._metrics.certificate_reads.inc()
        with tempfile.TemporaryDirectory(prefix="serving-cert-") as directory:
            chain, key = Path(directory, "tls.crt"), Path(directory, "tls.key")
            chain.write_bytes(pair.certificate)
            key.touch(mode=0o600)
            key.write_bytes(pair.key)
            try:
                server_context().load_cert_chain(chain, key)  # a trial: a failure must not leave half of it behind
                self.context.load_cert_chain(chain, key)
            except (ssl.SSLError, ValueError) as error:
                self.failed(f"certificate and key are of no use together: {error}")
                raise UnusablePair(self.trouble) from error
        self._loaded = pair
        self.trouble = ""
        self._ready.set()
        return True

    def failed(self, why: str) -> None:
        """Remember why no newer certificate could be had."""
        self._metrics.certificate_errors.inc()
        self.trouble = why

    async def wait_ready(self) -> None:
        """Wait until there is a certificate."""
        await self._ready.wait()

    def check(self, now: datetime) -> str | None:
        """The readiness check: is there a certificate, and is it still valid?"""
        if self._loaded is None:
            return self.trouble
        expires = self._loaded.expires_at
        return f"the certificate expired at {expires:%Y-%m-%dT%H:%M:%SZ}: {self.trouble}" if now >= expires else None


def server_context() -> ssl.SSLContext:
    """An empty context for a server: TLS 1.2 or newer, HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
