"""Where kube-apiserver and etcd are: the variables and the folder of controller-runtime's envtest and setup-envtest."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

ESSENTIAL = ("etcd", "kube-apiserver")
"""What a control plane needs."""

VARIABLES = {"etcd": "TEST_ASSET_ETCD", "kube-apiserver": "TEST_ASSET_KUBE_APISERVER", "kubectl": "TEST_ASSET_KUBECTL"}
"""Environment variables with the path of one binary."""

FOLDER_VARIABLE = "KUBEBUILDER_ASSETS"
"""Environment variable with the folder of all: `export KUBEBUILDER_ASSETS=$(setup-envtest use -p path)`."""

DEFAULT_FOLDER = Path("/usr/local/kubebuilder/bin")


class Unavailable(Exception):
    """There are no binaries; the message is one line for the reader."""


def find_binaries(names: Sequence[str] = ESSENTIAL, environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """The paths of the named binaries.

    Each is looked for at its own variable, in the folder of `KUBEBUILDER_ASSETS`, or in `/usr/local/kubebuilder/bin`.

    Raises:
        Unavailable: one is missing; names it and the places.
    """
    folder = Path(environment.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    found = {name: Path(environment.get(VARIABLES.get(name, "")) or folder / name) for name in names}
    missing = [str(path) for path in found.values() if not path.is_file()]
    if missing:
        text = f"no {', '.join(missing)}: set {FOLDER_VARIABLE} (setup-envtest use -p path prints it)"
        raise Unavailable(text)
    return found
