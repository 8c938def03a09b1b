"""Finds the CRDs of other projects, for tests against the real definitions.

They are files of Go modules, which the Go module proxy serves; a file is downloaded once.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

GATEWAY: Final = {
    "sigs.k8s.io/gateway-api@v1.4.0": (
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
    ),
    "sigs.k8s.io/gateway-api-inference-extension@v1.3.0": (
        "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml",
    ),
}
"""The Gateway API and its inference extension: files by module and version."""

FOREIGN: Final = {
    "github.com/argoproj/argo-cd/v2@v2.13.2": ("manifests/crds/application-crd.yaml",),
    "github.com/cert-manager/cert-manager@v1.16.2": (
        "deploy/crds/crd-certificates.yaml",
        "deploy/crds/crd-issuers.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.79.2": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheuses.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "sigs.k8s.io/gateway-api@v1.2.1": ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
    "sigs.k8s.io/karpenter@v1.1.1": (
        "pkg/apis/crds/karpenter.sh_nodeclaims.yaml",
        "pkg/apis/crds/karpenter.sh_nodepools.yaml",
    ),
}
"""Kinds for which operator authors generate models."""


class Unavailable(Exception):
    """The modules cannot be downloaded."""


def gateway_crds() -> list[Path]:
    """Returns the files of `GATEWAY`; raises `Unavailable`."""
    return module_files(GATEWAY)


def module_files(files: Mapping[str, tuple[str, ...]]) -> list[Path]:
    """Returns files of Go modules.

    Raises:
        Unavailable: Go is not installed, or the module proxy cannot be reached.
    """
    go = shutil.which("go")
    if go is None:
        raise Unavailable("Go is not installed, which downloads the definitions")
    found: list[Path] = []
    for module, names in files.items():
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
        found += [folder / name for name in names]
    return found
