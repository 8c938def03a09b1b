"""Keeps the adapters of a running server equal to a list in a file, without a restart.

The servers run it beside their routes. The workspace-controller writes the list to a ConfigMap that is mounted into
the pod; the kubelet replaces the file within about a minute of a change. Guarantees:

* An adapter is pulled and checked completely before the server loads it. A failure affects this adapter only, is
  reported with its cause, and is retried with growing pauses.
* A changed adapter is pulled and loaded before its former version is unloaded, so that no request fails.
* A server that restarts loads the same list before it is ready, except for adapters that fail for `START_SECONDS`.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, final

from kaito_presets.errors import AdapterError, ConfigurationError, Unavailable
from kaito_presets.json_values import is_list, is_object
from kaito_presets.serving.adapters import Adapter, read_adapter

log = logging.getLogger(__name__)

LIST_VARIABLE: Final = "KAITO_ADAPTER_LIST"
"""Environment variable with the path of the list; without it, adapters do not change."""
STORE_VARIABLE: Final = "KAITO_ADAPTER_STORE"
"""Environment variable with the directory into which adapters are pulled."""
CREDENTIALS_VARIABLE: Final = "KAITO_ADAPTER_CREDENTIALS"
"""Environment variable with the directory of the registry credentials, one Docker configuration per file."""

POLL_SECONDS: Final = 1.0
"""Interval at which the list is read. The file is small and local."""
START_SECONDS: Final = 120.0
"""Time for which a starting server waits for adapters that fail."""
FIRST_RETRY_SECONDS: Final = 5.0
MAX_RETRY_SECONDS: Final = 300.0
MAX_LIST_BYTES: Final = 2**20

State = Literal["Pulling", "Loading", "Loaded", "Failed", "Unloading"]


@dataclass(frozen=True, slots=True)
class ListedAdapter:
    """An entry of the list."""

    name: str
    image: str
    strength: float


@dataclass(frozen=True, slots=True)
class PulledAdapter:
    """An adapter on disk, and the digest of its image."""

    directory: Path
    digest: str


class AdapterHost(Protocol):
    """A server that loads and unloads adapters while it serves requests."""

    async def load(self, adapter: Adapter) -> None:
        """Loads an adapter; replaces one of the same name. New requests use it once this returns.

        Raises:
            AdapterError: the adapter cannot be used with this model, or does not fit.
        """
        ...

    async def unload(self, name: str) -> None:
        """Stops offering an adapter; does nothing if it is not loaded."""
        ...

    async def release(self) -> frozenset[str]:
        """Frees former versions that no request uses any more; returns the names of those that are still in use."""
        ...


Pull = Callable[[ListedAdapter, Path], Awaitable[PulledAdapter]]


@dataclass(slots=True)
class _Entry:
    listed: ListedAdapter
    state: State = "Pulling"
    message: str = ""
    digest: str = ""
    attempts: int = 0
    task: "asyncio.Task[None] | None" = None


@final
class AdapterSync:
    """The list, and what became of each adapter.

    Args:
        file: the list.
        pull: pulls an adapter.
        store: directory of the pulled adapters.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self, file: Path, pull: Pull, store: Path, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._sleep = sleep
        self._file = file
        self._pull = pull
        self._store = store
        self._entries: dict[str, _Entry] = {}
        self._unloading: frozenset[str] = frozenset()
        self._revision = ""
        self._problem = ""
        self._settled = asyncio.Event()

    def document(self) -> dict[str, object]:
        """Returns the body of `GET /adapters`: the revision of the list that was read, and the state of each
        adapter."""
        adapters = [
            {
                "name": entry.listed.name, "image": entry.listed.image, "strength": entry.listed.strength,
                "state": entry.state, "digest": entry.digest, "message": entry.message,
            }
            for entry in self._entries.values()
        ]  # fmt: skip
        gone = sorted(self._unloading - self._entries.keys())
        adapters += [{"name": name, "state": "Unloading"} for name in gone]
        return {"revision": self._revision, "problem": self._problem, "adapters": adapters}

    async def run(self, host: AdapterHost) -> None:
        """Follows the list until it is canceled."""
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    await self._follow(host, group)
                    self._unloading = await host.release()
                except Unavailable:  # the server is draining
                    return
                except Exception:
                    # The server must not end because of an adapter: it serves the others.
                    log.exception("following the list of adapters failed; trying again")
                if all(entry.state == "Loaded" for entry in self._entries.values()) and not self._problem:
                    self._settled.set()
                await self._sleep(POLL_SECONDS)

    async def wait_until_loaded(self, seconds: float = START_SECONDS) -> None:
        """Waits until all adapters of the list are loaded, at most for `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settled.wait()

    async def _follow(self, host: AdapterHost, group: asyncio.TaskGroup) -> None:
        """Starts what a changed list requires."""
        try:
            revision, wanted = read_list(await asyncio.to_thread(self._file.read_bytes))
        except (OSError, ConfigurationError) as error:
            if self._problem != str(error):
                log.warning("the list of adapters cannot be read, the adapters stay as they are: %s", error)
            self._problem = str(error)
            return
        self._problem = ""
        for name in self._entries.keys() - wanted.keys():
            entry = self._entries[name]
            await _cancel(entry.task)
            await host.unload(name)
            del self._entries[name]
            log.info("adapter %s is unloaded: it is not in the list any more", name)
        for name, listed in wanted.items():
            before = self._entries.get(name)
            if before is not None and before.listed == listed:
                continue
            if before is not None:
                await _cancel(before.task)
            entry = self._entries[name] = _Entry(listed)
            entry.task = group.create_task(self._provide(entry, host), name=f"adapter.{name}")
        # Written last, so that a reader of the revision sees at least what it requires.
        self._revision = revision

    async def _provide(self, entry: _Entry, host: AdapterHost) -> None:
        """Pulls and loads an adapter, until it is loaded."""
        listed = entry.listed
        while True:
            try:
                entry.state = "Pulling"
                pulled = await self._pull(listed, self._store)
                adapter = read_adapter(pulled.directory, listed.strength, name=listed.name)
                entry.state, entry.digest = "Loading", pulled.digest
                await host.load(adapter)
            except Unavailable:
                return
            except Exception as error:
                if not isinstance(error, AdapterError):
                    log.exception("loading adapter %s failed", listed.name)
                entry.attempts += 1
                pause = min(FIRST_RETRY_SECONDS * 2 ** (entry.attempts - 1), MAX_RETRY_SECONDS)
                entry.state, entry.message = "Failed", str(error)
                log.warning("%s; next attempt in %.0f s", error, pause)
                await self._sleep(pause)
            else:
                entry.state, entry.message = "Loaded", ""
                log.info("adapter %s is loaded at strength %g from %s", listed.name, listed.strength, listed.image)
                return


def adapters_document(sync: AdapterSync | None) -> dict[str, object]:
    """Returns the body of `GET /adapters`; without a list, it is empty."""
    return {"revision": "", "problem": "", "adapters": []} if sync is None else sync.document()


def read_list(content: bytes) -> tuple[str, dict[str, ListedAdapter]]:
    """Parses the list: its revision, and the adapters by name.

    Raises:
        ConfigurationError: the content is not a list of adapters.
    """
    if len(content) > MAX_LIST_BYTES:
        raise ConfigurationError(f"the list of adapters has {len(content)} bytes, at most {MAX_LIST_BYTES} are read")
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the list of adapters is not JSON: {error}") from error
    entries = document.get("adapters") if is_object(document) else None
    if not is_object(document) or not is_list(entries):
        raise ConfigurationError("the list of adapters must be an object with the list `adapters`")
    found = [_listed(entry, index) for index, entry in enumerate(entries)]
    wanted = {listed.name: listed for listed in found}
    if len(wanted) < len(found):
        raise ConfigurationError("the list of adapters contains a name twice")
    return str(document.get("revision", "")), wanted


def _listed(entry: Any, index: int) -> ListedAdapter:
    where = f"adapters[{index}]"
    if not is_object(entry):
        raise ConfigurationError(f"{where} is not an object")
    name, image, strength = entry.get("name"), entry.get("image"), entry.get("strength", 1.0)
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise ConfigurationError(f"{where}.name: {name!r} is not the name of an adapter")
    if not isinstance(image, str) or not image:
        raise ConfigurationError(f"{where}.image is missing")
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0.0 <= strength <= 1.0:
        raise ConfigurationError(f"{where}.strength: {strength!r} is not a number from 0 to 1")
    return ListedAdapter(name, image, float(strength))


async def _cancel(task: "asyncio.Task[None] | None") -> None:
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task})


def sync_from_environment(environment: Mapping[str, str] = os.environ) -> AdapterSync | None:
    """Returns the synchronization that the environment configures; None if adapters do not change."""
    file = environment.get(LIST_VARIABLE, "")
    if not file:
        return None
    store = Path(environment.get(STORE_VARIABLE) or "/tmp/kaito-adapters")  # noqa: S108 - a volume of the pod
    directory = environment.get(CREDENTIALS_VARIABLE, "")
    return AdapterSync(Path(file), Puller(Path(directory) if directory else None), store)


@final
class Puller:
    """Pulls adapters with the command `kaito-pull-adapter`, which a change of the list can end at any time.

    An adapter that is complete on disk is not pulled again, so that a container that restarts is independent of the
    registry.
    """

    def __init__(self, credentials: Path | None, command: Sequence[str] = ()) -> None:
        self._credentials = credentials
        self._command = [*command] or [
            sys.executable,
            "-c",
            "from kaito_oci.main import pull; raise SystemExit(pull())",
        ]

    async def __call__(self, listed: ListedAdapter, store: Path) -> PulledAdapter:
        """Pulls an adapter.

        Raises:
            AdapterError: the registry or the image is at fault; the message contains the last line of the command.
        """
        directory = store / hashlib.sha256(listed.image.encode()).hexdigest()[:24]
        digest_file = directory.with_suffix(".digest")
        if not digest_file.is_file():
            await self._run(listed, directory, digest_file)
        return PulledAdapter(directory, digest_file.read_text(encoding="ascii").strip())

    async def _run(self, listed: ListedAdapter, directory: Path, digest_file: Path) -> None:
        directory.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        configs = sorted(self._credentials.glob("*.json")) if self._credentials else []
        flags = [word for config in configs for word in ("--docker-config", str(config))]
        process = await asyncio.create_subprocess_exec(
            *self._command, listed.image, str(directory), "--digest-file", str(digest_file), *flags,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            _, output = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            lines = output.decode(errors="replace").strip().splitlines()
            reason = lines[-1].partition(": ")[2] or lines[-1] if lines else f"exit code {process.returncode}"
            raise AdapterError(listed.name, f"cannot be pulled: {reason}")
