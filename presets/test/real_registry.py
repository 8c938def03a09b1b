"""Where the tests and the demonstration get a real registry: on the PATH, or built once with Go from the
module proxy."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULE = "github.com/distribution/distribution/v3/cmd/registry@v3.0.0"
"""The registry that docker publishes; knows credentials (htpasswd), which the tests need."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kaito-test-registry"

START_SECONDS = 60.0

CONFIG = """\
version: 0.1
storage:
  filesystem: {{rootdirectory: {storage}}}
http:
  addr: 127.0.0.1:{port}
log: {{level: error}}
{auth}
"""


@dataclass(frozen=True)
class RegistryProgram:
    """An executable that serves the registry protocol."""

    binary: Path

    def command(self, port: int, storage: Path, htpasswd: Path | None = None) -> list[str]:
        auth = f"auth: {{htpasswd: {{realm: test, path: {htpasswd}}}}}" if htpasswd else ""
        config = storage / "config.yml"
        config.write_text(CONFIG.format(storage=storage / "data", port=port, auth=auth))
        return [str(self.binary), "serve", str(config)]

    def environment(self, port: int, storage: Path) -> dict[str, str]:
        return {"OTEL_TRACES_EXPORTER": "none"}


def registry_command() -> RegistryProgram | None:
    """The registry, built if need be; None on a machine without registry and Go."""
    chosen = os.environ.get("KAITO_TEST_REGISTRY") or shutil.which("docker-registry")
    if chosen:
        return RegistryProgram(Path(chosen))
    binary = CACHE / "registry"
    if not binary.is_file():
        go = shutil.which("go")
        if go is None:
            return None
        CACHE.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"GOBIN": str(CACHE), "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
        subprocess.run(["nice", go, "install", MODULE], check=True, env=environment)
    return RegistryProgram(binary)


@contextmanager
def running(program: RegistryProgram, folder: Path, htpasswd: Path | None = None) -> Generator[str]:
    """Runs a registry on a free port of this machine; yields its host and port once it accepts connections.

    Raises:
        AssertionError: it ended, or did not accept connections in time.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        program.command(port, folder, htpasswd),
        env=os.environ | program.environment(port, folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_port(process, port)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, "the registry ended"
            assert time.monotonic() < deadline, f"the registry accepted no connection in {START_SECONDS:.0f} s"
            time.sleep(0.05)


if __name__ == "__main__":
    # Building takes minutes on a machine with cold caches, longer than a test may run: `make test` does it first.
    registry_command()
