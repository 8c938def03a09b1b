"""Command-line flags in Go's manner, and the standard ones of a manager's binary.

For programs that take `--metrics-bind-address` and the like under the names that controller-runtime's users know.
Booleans are written `--flag`, `--flag=true` or `--flag=false`, durations `90s`, `15m` or `1h30m`.
"""

import argparse
import re
from pathlib import Path
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def boolean(text: str) -> bool:
    """`true` and `false` as Go's flag package reads them.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    if text.lower() in {"true", "t", "1"}:
        return True
    if text.lower() in {"false", "f", "0"}:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def duration(text: str) -> float:
    """Seconds of a Go duration such as `15m` or `1h30m`; a bare number is seconds.

    Raises:
        argparse.ArgumentTypeError: it is not a duration.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 15m or 1h30m")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


class FlagParser(argparse.ArgumentParser):
    """An argument parser with switches and durations; flags are never abbreviated."""

    def __init__(self, *, prog: str, description: str) -> None:
        """Make a parser whose help shows every default."""
        formatter = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(prog=prog, description=description, formatter_class=formatter, allow_abbrev=False)

    def switch(self, name: str, *, default: bool, help: str) -> None:  # noqa: A002 - argparse's word
        """Add a boolean."""
        self.add_argument(name, type=boolean, nargs="?", const=True, default=default, metavar="BOOL", help=help)

    def duration(self, name: str, default: float, help: str) -> None:  # noqa: A002 - argparse's word
        """Add a duration in seconds."""
        self.add_argument(name, type=duration, default=default, metavar="DURATION", help=help)

    def manager(self) -> None:
        """Add the flags that every manager has; `manager_settings` reads them."""
        self.add_argument("--metrics-bind-address", default=":8080", help="address of /metrics; 0 is off")
        self.switch("--metrics-secure", default=False, help="serve /metrics by TLS, to whom RBAC allows it")
        self.add_argument(
            "--metrics-cert-path", type=Path, default=None, help="directory with tls.crt and tls.key for secure metrics"
        )
        self.add_argument("--health-probe-bind-address", default=":8081", help="address of /healthz, /readyz; 0 is off")
        self.switch("--debug-endpoints", default=False, help="serve /debug/* beside /metrics")
        self.switch("--leader-elect", default=True, help="hold a lease before acting")
        self.add_argument("--leader-election-namespace", default="", help="namespace of the lease; empty: the pod's")
        self.add_argument("--kubeconfig", type=Path, default=None, help="kubeconfig; default: environment, then pod")
        self.add_argument("--context", default="", help="context of the kubeconfig")
        self.add_argument("--kube-client-qps", type=float, default=-1.0, help="requests a second; below 0: unlimited")
        self.add_argument("--kube-client-burst", type=int, default=0, help="requests at once above that rate")
        self.add_argument("--log-format", choices=("json", "console"), default="json", help="form of the log")
        self.add_argument(
            "--log-level",
            choices=("debug", "info", "warning", "error"),
            default="info",
            help="least severe record logged",
        )


def manager_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of the standard flags, as `Settings` names them."""
    return {
        "metrics_bind_address": arguments.metrics_bind_address,
        "metrics_secure": arguments.metrics_secure,
        "metrics_cert_dir": arguments.metrics_cert_path,
        "health_probe_bind_address": arguments.health_probe_bind_address,
        "debug_endpoints": arguments.debug_endpoints,
        "leader_elect": arguments.leader_elect,
        "leader_election_namespace": arguments.leader_election_namespace,
        "kubeconfig": arguments.kubeconfig,
        "context": arguments.context,
        "kube_client_qps": arguments.kube_client_qps,
        "kube_client_burst": arguments.kube_client_burst,
        "log_format": arguments.log_format,
        "log_level": arguments.log_level,
    }
