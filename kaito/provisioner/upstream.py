"""Tables of the flags and environment variables of upstream's gpu-provisioner v0.4.3 with another name here, or none.

Upstream's chart and command lines of upstream's binary must start this provisioner unchanged. Flags with a counterpart
set it; flags without one are accepted with a note, which `main` logs. `flags.parse` uses the tables, and
docs/reference/upstream-flags.md is generated from them.
"""

import argparse
from collections.abc import Mapping
from typing import Final

from kaito.runtime.flags import FlagParser, boolean

_CORE: Final = "it configures Karpenter's core, which this provisioner does not contain"

ACCEPTED: Final[Mapping[str, str]] = {
    "--karpenter-service": "no Service is needed: there is no webhook",
    "--leader-election-name": "the name of the lease is gpu-provisioner",
    "--memory-limit": "no setting depends on a memory limit",
    "--cpu-requests": "the number of concurrent reconciles is --concurrency",
    "--log-output-paths": "the log goes to standard error",
    "--log-error-output-paths": "the log goes to standard error",
    "--disable-cluster-state-observability": _CORE,
    "--batch-max-duration": _CORE,
    "--batch-idle-duration": _CORE,
    "--preference-policy": _CORE,
    "--min-values-policy": _CORE,
    "--ignore-dra-requests": _CORE,
    "--feature-gates": _CORE,
}
"""Flags without effect, and the reason."""

HONORED: Final[Mapping[str, str]] = {
    "--metrics-port": "port of --metrics-bind-address",
    "--health-probe-port": "port of --health-probe-bind-address",
    "--enable-profiling": "the same as --debug-endpoints",
    "--disable-leader-election": "the opposite of --leader-elect, which is on by default here",
}
"""Flags with another name here, and that name."""

ENVIRONMENT: Final[Mapping[str, str]] = {
    "METRICS_PORT": "--metrics-port",
    "HEALTH_PROBE_PORT": "--health-probe-port",
    "ENABLE_PROFILING": "--enable-profiling",
    "DISABLE_LEADER_ELECTION": "--disable-leader-election",
    "FEATURE_GATES": "--feature-gates",
}
"""Environment variables of these flags; upstream's chart sets the first two."""

_SWITCHES: Final = {"--enable-profiling", "--disable-leader-election"}


def add_flags(flags: FlagParser) -> None:
    """Adds all flags of the tables."""
    for name, reason in {**HONORED, **ACCEPTED}.items():
        support = "honored" if name in HONORED else "no effect"
        flags.add_argument(name, nargs="?", const="true", default=None, help=f"upstream's flag, {support}: {reason}")


def apply(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Sets the counterparts of the flags that were given; returns a note for each flag without effect.

    Raises:
        ValueError: a value is not a port or not a boolean.
    """
    given = {name: environ[variable] for variable, name in ENVIRONMENT.items() if is_setting(environ.get(variable))}
    for name in (*HONORED, *ACCEPTED):
        value: str | None = getattr(args, _attribute(name))
        if value is not None:
            given[name] = value
    for name, attribute in (("--metrics-port", "metrics"), ("--health-probe-port", "health_probe")):
        if name in given:
            setattr(args, f"{attribute}_bind_address", _address(name, given[name]))
    switches = {name: _switch(name, given[name]) for name in _SWITCHES & given.keys()}
    args.debug_endpoints = switches.get("--enable-profiling", args.debug_endpoints)
    if "--disable-leader-election" in switches:
        args.leader_elect = not switches["--disable-leader-election"]
    return tuple(f"{name} has no effect: {reason}" for name, reason in ACCEPTED.items() if name in given)


def is_setting(value: str | None) -> bool:
    """Whether a variable is a setting: Kubernetes sets METRICS_PORT=tcp://… for a Service called `metrics`."""
    return bool(value) and not str(value).startswith(("tcp://", "udp://", "sctp://"))


def _attribute(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")


def _address(name: str, port: str) -> str:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536):
        raise ValueError(f"{name} is {port!r}: use a port from 0 to 65535")
    return f":{int(port)}" if int(port) else "0"


def _switch(name: str, value: str) -> bool:
    try:
        return boolean(value)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{name}: {error}") from None
