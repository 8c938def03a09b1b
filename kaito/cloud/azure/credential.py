"""Creates the credential for Azure: workload identity, managed identity, or a fake one for the simulator.

`azure-identity` implements the real ones. The SDK requires a credential and rejects sending a bearer token over HTTP,
which the simulator serves; `FakeCredential` and `FakeTokenPolicy` satisfy both.
"""

import os
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, final

from azure.core.credentials import AccessToken
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, SansIOHTTPPolicy

from kaito.cloud.azure.settings import CredentialMode
from kaito.runtime.errors import ConfigurationError

FAR_FUTURE = 4102444800
"""2100-01-01, in seconds since the epoch."""


def make_credential(mode: CredentialMode, *, client_id: str = "", tenant_id: str = "") -> AsyncTokenCredential:
    """Creates the credential for a mode; sends no request. Empty IDs are read from the environment.

    Raises:
        ConfigurationError: workload identity is not configured.
    """
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential, WorkloadIdentityCredential

    ids = {name: value for name, value in (("client_id", client_id), ("tenant_id", tenant_id)) if value}
    match mode:
        case "workload":
            try:
                return WorkloadIdentityCredential(**ids)
            except ValueError as error:
                raise ConfigurationError(_explain_missing_identity(ids)) from error
        case "managed":
            return ManagedIdentityCredential(client_id=client_id or None)
        case "default":
            return DefaultAzureCredential()
        case "fake":
            return FakeCredential()


def _explain_missing_identity(ids: Mapping[str, str]) -> str:
    settings = {"client_id": "AZURE_CLIENT_ID", "tenant_id": "AZURE_TENANT_ID", "": "AZURE_FEDERATED_TOKEN_FILE"}
    missing = [variable for name, variable in settings.items() if name not in ids and not os.environ.get(variable)]
    return (
        f"workload identity is not configured: {', '.join(missing)} not set. AKS sets them in pods with the label "
        "azure.workload.identity/use if workload identity is enabled on the cluster and the ServiceAccount has the "
        "annotation azure.workload.identity/client-id. Elsewhere, select another credential with --azure-credential."
    )


@final
class FakeCredential:
    """Credential with a constant token, which only the simulator accepts."""

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> AccessToken:
        """Returns the constant token."""
        del scopes, claims, tenant_id, enable_cae, kwargs
        return AccessToken("fake", FAR_FUTURE)

    async def close(self) -> None:
        """Does nothing: there are no connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.close()


@final
class FakeTokenPolicy(SansIOHTTPPolicy[Any, Any]):  # type: ignore[misc]  # mypy does not follow the SDK
    """Sends the constant token over HTTP, which the SDK's policy for bearer tokens rejects."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Sets the Authorization header."""
        request.http_request.headers["Authorization"] = "Bearer fake"


@final
class NewTokenPolicy(AsyncHTTPPolicy[Any, Any]):  # type: ignore[misc]  # mypy does not follow the SDK
    """Sends a request again, once, after a 401: the token has expired, or was revoked, before the local clock noticed.

    The SDK's policy for bearer tokens, which follows this one, drops the token then, but does not repeat the request. A
    401 has no effect in Azure, so that writes are repeated as well.
    """

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Returns the response to the last request that was sent."""
        response = await self.next.send(request)
        if response.http_response.status_code == HTTPStatus.UNAUTHORIZED:
            response = await self.next.send(request)
        return response
