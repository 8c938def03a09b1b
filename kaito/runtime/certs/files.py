"""Reads a certificate from files: of cert-manager, a mounted Secret or an administrator.

The files are read every few seconds: Kubernetes updates a mounted Secret by replacing a symbolic link, for which file
notifications are unreliable. Missing files are not an error at the start, because they are often written later.
"""

import asyncio
from pathlib import Path
from typing import final

from kaito.runtime.certs.authority import KeyPair
from kaito.runtime.certs.serving import InvalidKeyPair, ServingContext
from kaito.runtime.logging import get_logger

POLL_SECONDS = 5.0
"""Interval of the reads; certwatcher polls every 10 s besides its notifications."""

_log = get_logger(__name__)


@final
class CertificateFiles:
    """Loads `tls.crt` and `tls.key` of a directory into a serving context whenever they change. A `Runnable`."""

    name = "certificate-files"
    leader_elected = False

    def __init__(self, directory: Path, serving: ServingContext) -> None:
        self._directory = directory
        self._serving = serving

    async def run(self) -> None:
        """Reload at an interval, until cancelled."""
        while True:
            await self.reload()
            await asyncio.sleep(POLL_SECONDS)

    async def reload(self) -> None:
        """Loads the files. If they are not valid, that is logged once and the previous certificate stays."""
        previous_problem = self._serving.problem
        try:
            pair = await asyncio.to_thread(self._read)
            if self._serving.load(pair):
                _log.info("serving certificate loaded", directory=str(self._directory), expires=str(pair.expires_at))
        except InvalidKeyPair:
            pass  # recorded in `problem`
        except (OSError, ValueError) as error:
            self._serving.record_failure(f"{self._directory}: {error}")
        if self._serving.problem and self._serving.problem != previous_problem:
            _log.warning("serving certificate not valid", reason=self._serving.problem)

    def _read(self) -> KeyPair:
        pair = KeyPair((self._directory / "tls.crt").read_bytes(), (self._directory / "tls.key").read_bytes())
        _ = pair.expires_at  # raises ValueError for a file that is not a certificate
        return pair
