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
    """Subscription of the cluster (environment variable ARM_SUBSCRIPTION_ID)."""
    resource_group: str = Field(min_length=1)
    """Resource group of the cluster (environment variable ARM_RESOURCE_GROUP)."""
    cluster: str = Field(min_length=1)
    """Name of the AKS cluster (environment variable AZURE_CLUSTER_NAME)."""
    location: str = ""
    """Region (environment variable LOCATION); empty: read from the cluster."""
    endpoint: str = PUBLIC_ARM
    """URL of Azure Resource Manager, or of a simulator with the credential `fake`."""
    credential_mode: CredentialMode = "workload"
    """Type of the credential; `fake` only for the simulator (environment variable DEPLOYMENT_MODE)."""
    client_id: str = ""
    """Client ID of the identity (environment variable AZURE_CLIENT_ID)."""
    tenant_id: str = ""
    """Tenant ID of the identity (environment variable AZURE_TENANT_ID)."""
    api_version: str = API_VERSION
    """API version of Microsoft.ContainerService."""
    requests_per_second: float = Field(default=10.0, gt=0)
    """Sustained rate of all ARM requests together. It applies in addition to the limits of AKS for each kind
    (`rate_limits`). ARM allows 10 writes, 10 deletes and 25 reads per second and subscription."""
    request_burst: int = Field(default=200, gt=0)
    """ARM requests at once above that rate. ARM allows 200 writes, 200 deletes and 250 reads."""
    request_timeout_seconds: float = Field(default=60.0, gt=0)
    """Timeout of an ARM request."""
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
