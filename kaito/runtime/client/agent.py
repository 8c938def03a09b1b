"""Builds the User-Agent header in client-go's format."""

import platform

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def user_agent(binary: str, version: str = "") -> str:
    """Returns `<binary>/<version> (<os>/<arch>)`; the version defaults to that of this distribution."""
    machine = platform.machine().lower()
    system = f"{platform.system().lower()}/{_ARCHITECTURES.get(machine, machine)}"
    return f"{binary}/{version or _own_version()} ({system})"


def _own_version() -> str:
    from importlib import metadata  # imported here because it takes 30 ms, which only a process with a client needs

    try:
        return metadata.version("kaito-runtime")
    except metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"
