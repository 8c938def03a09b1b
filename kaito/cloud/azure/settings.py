"""Settings of the Azure provider: the cluster, the credential, and limits of requests.

`kaito.provisioner.flags` builds them from the command line and the environment.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CredentialMode = Literal["workload", "managed", "default", "fake"]
"""`workload`: federated token of the service account. `managed`: identity of the node. `default`: the first that is
available, in the order of azure-identity. `fake`: a constant token, for the simulator only."""

PUBLIC_ARM = "https://management.azure.com"
API_VERSION = "2026-08-01"
"""API version of `Microsoft.ContainerService` that the pinned major version of the SDK was generated for."""


class AzureSettings(BaseModel):
    """Validated at start; surrounding white space is removed from all values."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    subscription_id: str = Field(min_length=1)
    resource_group: str = Field(min_length=1)
    cluster: str = Field(min_length=1)
    location: str = ""
    """Region; empty: read from the cluster."""
    endpoint: str = PUBLIC_ARM
    """URL of the resource manager; the URL of a simulator with the `fake` credential."""
    credential_mode: CredentialMode = "workload"
    client_id: str = ""
    tenant_id: str = ""
    api_version: str = API_VERSION
    requests_per_second: float = Field(default=10.0, gt=0)
    """Sustained rate of all ARM requests together, in addition to the limits of AKS for each kind (`rate_limits`). ARM
    allows 10 writes, 10 deletes and 25 reads per second and subscription."""
    request_burst: int = Field(default=200, gt=0)
    """Requests at once above that rate; ARM allows 200 writes, 200 deletes and 250 reads."""
    request_timeout_seconds: float = Field(default=60.0, gt=0)
    """Timeout of a request in seconds."""
    attempts: int = Field(default=3, ge=1)
    """Attempts of one request after failed connections; further retries are up to the work queue."""

    @model_validator(mode="after")
    def _require_https_for_credentials(self) -> Self:
        secure = self.endpoint.startswith("https://")
        if not secure and self.credential_mode != "fake":
            message = (
                f"the ARM endpoint {self.endpoint} is not https: real credentials are only sent encrypted "
                "(use --azure-credential fake for a simulator)"
            )
            raise ValueError(message)
        return self
