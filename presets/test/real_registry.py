"""Where the tests and the demonstration get a real registry: on the PATH, or built once with Go from the
module proxy."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MODULE = "github.com/distribution/distribution/v3/cmd/registry@v3.0.0"
"""The registry that docker publishes; knows credentials (htpasswd), which the tests need."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kaito-test-registry"

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


if __name__ == "__main__":
    # Building takes minutes on a machine with cold caches, longer than a test may run: `make test` does it first.
    registry_command()
