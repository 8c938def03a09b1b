"""Finds kube-apiserver and etcd by the variables and the directory of controller-runtime's envtest and
setup-envtest."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

ESSENTIAL = ("etcd", "kube-apiserver")
"""Binaries of a control plane."""

VARIABLES = {"etcd": "TEST_ASSET_ETCD", "kube-apiserver": "TEST_ASSET_KUBE_APISERVER", "kubectl": "TEST_ASSET_KUBECTL"}
"""Environment variables for the paths of single binaries."""

FOLDER_VARIABLE = "KUBEBUILDER_ASSETS"
"""Environment variable for the directory of all: `export KUBEBUILDER_ASSETS=$(setup-envtest use -p path)`."""

DEFAULT_FOLDER = Path("/usr/local/kubebuilder/bin")


class Unavailable(Exception):
    """Binaries are missing; the message is one line with the remedy."""


def find_binaries(names: Sequence[str] = ESSENTIAL, environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Returns the paths of binaries.

    The path is that in the binary's variable, or in the directory of `KUBEBUILDER_ASSETS` or
    `/usr/local/kubebuilder/bin`.

    Raises:
        Unavailable: A binary is missing; the message contains its path.
    """
    folder = Path(environment.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    found = {name: Path(environment.get(VARIABLES.get(name, "")) or folder / name) for name in names}
    missing = [str(path) for path in found.values() if not path.is_file()]
    if missing:
        text = f"{', '.join(missing)} missing: set {FOLDER_VARIABLE} (setup-envtest use -p path prints it)"
        raise Unavailable(text)
    return found
