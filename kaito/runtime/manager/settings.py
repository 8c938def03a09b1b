"""`Settings`: the configuration of a manager, from the environment or from flags.

Read once, in `main`; the rest of the framework does not read the environment. The defaults are controller-runtime's
where it has the setting.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kaito.runtime.errors import ConfigurationError
from kaito.runtime.logging import LogFormat, LogLevel

Seconds = Annotated[float, Field(ge=0)]

OFF = "0"
"""The bind address that turns a server off."""

RENEW_JITTER = 1.2
"""Retry periods are extended by up to this factor (client-go's `JitterFactor`)."""


class Settings(BaseModel):
    """Settings of a manager; invalid values raise one error with all their names.

    Raises:
        pydantic.ValidationError: a value is not valid. `from_env` raises `ConfigurationError` instead.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    metrics_bind_address: str = ":8080"
    """Address of `/metrics`; `0` disables it."""
    debug_endpoints: bool = False
    """Serve `/debug/tasks`, `/debug/queues`, `/debug/failures`, `/debug/cache` and `/debug/memory` beside the metrics.
    They contain names of objects and lines of source: restrict access to the port, or set `metrics_secure`."""
    metrics_secure: bool = False
    """Serve metrics over HTTPS and authorize every request (TokenReview, SubjectAccessReview). The certificate is
    self-signed unless `metrics_cert_dir` is set."""
    metrics_cert_dir: Path | None = None
    """Directory with `tls.crt` and `tls.key` for secure metrics."""
    health_probe_bind_address: str = ":8081"
    """Address of `/healthz` and `/readyz`; `0` disables them."""
    webhook_bind_address: str = ""
    """Address of the webhook server; all interfaces by default."""
    webhook_port: int = Field(default=9443, ge=0, le=65535)
    """Port of the webhook server; 0 selects a free one."""
    webhook_cert_dir: Path | None = None
    """Directory with `tls.crt` and `tls.key`; without it the manager issues and rotates a certificate."""
    webhook_service: str = ""
    """Name of the Service in front of the webhook server; the manager's name by default."""
    webhook_hosts: tuple[str, ...] = ()
    """Additional host names or addresses of the webhook server, for example `127.0.0.1`."""
    webhook_client_ca: Path | None = None
    """CA of client certificates, which are then required."""
    leader_elect: bool = True
    """Run controllers only while holding the lease. The manager needs `lease=`."""
    leader_election_namespace: str = ""
    """Namespace of the lease. Default: `$POD_NAMESPACE`, the pod's namespace, or that of the kubeconfig's context."""
    lease_duration_seconds: Seconds = 15.0
    """How long other candidates wait after the last renewal that they observed."""
    renew_deadline_seconds: Seconds = 10.0
    """How long a leader retries a renewal before it stops."""
    retry_period_seconds: Seconds = 2.0
    """Interval of the attempts."""
    identity: str = ""
    """Name of this process in the lease and in events; by default `$POD_NAME` or the host name, with a random
    suffix."""
    kubeconfig: Path | None = None
    """Path of a kubeconfig. Default: `$KUBECONFIG`, `~/.kube/config`, or the pod's service account."""
    context: str = ""
    """Context of the kubeconfig. Default: its current context."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; all when empty."""
    kube_client_qps: float = -1.0
    """Client-side limit of requests per second; 0 or less disables it."""
    kube_client_burst: int = Field(default=0, ge=0)
    """Number of requests above the limit that are sent at once."""
    cache_sync_seconds: Seconds = 120.0
    """Timeout of the first lists of all kinds."""
    watch_silence_seconds: Seconds = 180.0
    """`/readyz` fails if the API server sends nothing about a kind for longer than this. It sends bookmarks about every
    minute. Without bookmarks the cache reads a kind without changes every three minutes, so that lower values have no
    effect."""
    graceful_shutdown_seconds: Seconds = 30.0
    """Graceful period: the time in which everything together must stop."""
    tracing_endpoint: str = ""
    """Collector that receives spans by OTLP over HTTP, such as `http://collector:4318`; empty for none. The program
    opens the tracer (`kaito.runtime.tracing`), and OTEL_* variables set everything else."""
    log_format: LogFormat = "json"
    """Log format."""
    log_level: LogLevel = "info"
    """Minimum log level."""

    @field_validator("tracing_endpoint")
    @classmethod
    def _collector(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment):
            message = f"{value!r} is not the address of a collector: use one such as http://collector:4318"
            raise ValueError(message)
        return value.rstrip("/")

    @field_validator("metrics_bind_address", "health_probe_bind_address")
    @classmethod
    def _addresses(cls, value: str) -> str:
        parse_bind_address(value)
        return value

    @model_validator(mode="after")
    def _metrics_certificate(self) -> Self:
        if self.metrics_cert_dir is not None and not self.metrics_secure:
            message = "metrics_cert_dir has no effect without metrics_secure: set both, or neither"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _lease_times(self) -> Self:
        slowest_retry = self.retry_period_seconds * RENEW_JITTER
        if not self.lease_duration_seconds > self.renew_deadline_seconds > slowest_retry:
            message = (
                f"lease_duration_seconds ({self.lease_duration_seconds:g}) > renew_deadline_seconds "
                f"({self.renew_deadline_seconds:g}) > {RENEW_JITTER} * retry_period_seconds ({slowest_retry:g}) "
                "must hold"
            )
            raise ValueError(message)
        return self

    @property
    def serves_http(self) -> bool:
        """Whether a server for probes or metrics runs."""
        addresses = (self.metrics_bind_address, self.health_probe_bind_address)
        return any(parse_bind_address(address) is not None for address in addresses)

    @classmethod
    def from_env(cls, prefix: str = "KAITO_", environment: Mapping[str, str] | None = None) -> Self:
        """Reads `<PREFIX><FIELD>` for every field, for example `KAITO_METRICS_BIND_ADDRESS`.

        Lists are separated by commas. Other variables with the prefix are ignored, because they may belong to the
        program.

        Raises:
            ConfigurationError: a value is not valid; the message contains the variable.
        """
        source = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            text = source.get(f"{prefix}{name.upper()}")
            if text is None:
                continue
            is_list = field.annotation == tuple[str, ...]
            values[name] = tuple(part.strip() for part in text.split(",") if part.strip()) if is_list else text
        try:
            return cls(**values)
        except ValidationError as error:
            problems = "; ".join(
                f"{prefix}{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}" if each["loc"] else each["msg"]
                for each in error.errors()
            )
            message = f"settings from the environment: {problems}"
            raise ConfigurationError(message) from error


def parse_bind_address(address: str) -> tuple[str | None, int] | None:
    """Parses `:8080`, `127.0.0.1:8080` or `[::1]:8080` into host and port; the host is None for all interfaces.

    Returns:
        None for `0`, which turns a server off.

    Raises:
        ValueError: the text is not a bind address.
    """
    if address in {"", OFF}:
        return None
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        message = f"{address!r} is not a bind address: use ':8080', '127.0.0.1:8080', '[::1]:8080', or '0' for off"
        raise ValueError(message)
    return host.strip("[]") or None, int(port)
