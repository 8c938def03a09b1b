"""A certificate that somebody else keeps in files: cert-manager, a mounted Secret, an administrator.

Read again every few seconds: Kubernetes replaces mounted Secrets by swapping a symbolic link, which file notifications
miss easily, and two small files cost nothing. Missing files are waited for, not fatal: they often come a little later.
"""

import asyncio
from pathlib import Path
from typing import final

from kaito.runtime.certs.authority import Pair
from kaito.runtime.certs.serving import ServingContext, UnusablePair
from kaito.runtime.logging import get_logger

POLL_SECONDS = 5.0
"""Between two looks; certwatcher polls every 10 s next to its notifications."""

_log = get_logger(__name__)


@final
class CertificateFiles:
    """Keeps a serving context in step with `tls.crt` and `tls.key` of a directory. A `Runnable`."""

    name = "certificate-files"
    leader_elected = False

    def __init__(self, directory: Path, serving: ServingContext) -> None:
        self._directory = directory
        self._serving = serving

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Take what is there now; what is of no use is told once and the last good pair stays."""
        before = self._serving.trouble
        try:
            pair = await asyncio.to_thread(self._read)
            if self._serving.load(pair):
                _log.info("serving certificate loaded", directory=str(self._directory), expires=str(pair.expires_at))
        except UnusablePair:
            pass  # remembered in `trouble`
        except (OSError, ValueError) as error:
            self._serving.failed(f"{self._directory}: {error}")
        if self._serving.trouble and self._serving.trouble != before:
            _log.warning("serving certificate not usable", reason=self._serving.trouble)

    def _read(self) -> Pair:
        pair = Pair((self._directory / "tls.crt").read_bytes(), (self._directory / "tls.key").read_bytes())
        _ = pair.expires_at  # refuses what is no certificate before it gets near the context
        return pair
