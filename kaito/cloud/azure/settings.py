"""Where the cluster is in Azure, and how to talk to ARM. Built by the provisioner from flags and environment."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CredentialMode = Literal["workload", "managed", "default", "fake"]
"""`workload`: federated token of the service account. `managed`: the machine's identity. `default`: whatever the
environment offers, in azure-identity's order. `fake`: none, for the simulator only."""

PUBLIC_ARM = "https://management.azure.com"
API_VERSION = "2026-08-01"
"""Of `Microsoft.ContainerService`: the one the pinned SDK major was generated for."""


class AzureSettings(BaseModel):
    """Validated once at start; every value has been trimmed."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    subscription_id: str = Field(min_length=1)
    resource_group: str = Field(min_length=1)
    cluster: str = Field(min_length=1)
    location: str = ""
    """Empty asks the cluster itself."""
    endpoint: str = PUBLIC_ARM
    """Resource manager of the cloud in use; a simulator's address together with the `fake` credential."""
    credential_mode: CredentialMode = "workload"
    client_id: str = ""
    tenant_id: str = ""
    api_version: str = API_VERSION
    requests_per_second: float = Field(default=10.0, gt=0)
    """Sustained rate of all ARM requests together, over the budgets that AKS documents for each kind (`throttle`). ARM
    refills a subscription's buckets with 10 (writes and deletes) and 25 (reads) tokens a second."""
    request_burst: int = Field(default=200, gt=0)
    """Requests at once above that rate; ARM's buckets hold 200 (writes and deletes) and 250 (reads)."""
    request_timeout: float = Field(default=60.0, gt=0)
    """Seconds without an answer after which a request is given up."""
    attempts: int = Field(default=3, ge=1)
    """Tries of one request within one call; what still fails goes back to the work queue."""

    @model_validator(mode="after")
    def _plain_http_only_for_nobody(self) -> Self:
        secure = self.endpoint.startswith("https://")
        if not secure and self.credential_mode != "fake":
            message = (
                f"the ARM endpoint {self.endpoint} is not https: a real credential is only sent encrypted "
                "(use --azure-credential fake for a simulator)"
            )
            raise ValueError(message)
        return self
