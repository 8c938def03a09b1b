"""Finds the CRDs of the Gateway API and of its inference extension, for tests against the real definitions.

They are files of Go modules, which the Go module proxy serves; a file is downloaded once.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

FILES: Final = {
    "sigs.k8s.io/gateway-api@v1.4.0": (
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
    ),
    "sigs.k8s.io/gateway-api-inference-extension@v1.3.0": (
        "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml",
    ),
}
"""Files by module and version."""


class Unavailable(Exception):
    """The modules cannot be downloaded."""


def gateway_crds() -> list[Path]:
    """Returns the files of the definitions.

    Raises:
        Unavailable: Go is not installed, or the module proxy cannot be reached.
    """
    go = shutil.which("go")
    if go is None:
        raise Unavailable("Go is not installed, which downloads the CRDs of the Gateway API")
    found: list[Path] = []
    for module, files in FILES.items():
        result = subprocess.run(
            [go, "mod", "download", "-json", module],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "GOFLAGS": "-mod=mod"},
        )
        if result.returncode:
            raise Unavailable(f"{module} cannot be downloaded: {result.stdout} {result.stderr}")
        folder = Path(json.loads(result.stdout)["Dir"])
        found += [folder / file for file in files]
    return found
