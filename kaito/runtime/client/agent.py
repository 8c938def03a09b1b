"""Who we say we are: the User-Agent of every request, in client-go's form."""

import platform

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def user_agent(binary: str, version: str = "") -> str:
    """`<binary>/<version> (<os>/<arch>)`; without a version, this distribution's."""
    machine = platform.machine().lower()
    system = f"{platform.system().lower()}/{_ARCHITECTURES.get(machine, machine)}"
    return f"{binary}/{version or _own_version()} ({system})"


def _own_version() -> str:
    from importlib import metadata  # 30 ms that only a process with a client needs

    try:
        return metadata.version("kaito")
    except metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"
