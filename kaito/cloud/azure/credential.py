"""Who the provisioner is to Azure: a workload identity, a managed identity, or nobody at all for the simulator.

`azure-identity` does the work; this module only picks. The fake identity exists because the SDK insists on a
credential and refuses to send a bearer token over plain HTTP, which is all the simulator speaks.
"""

from types import TracebackType
from typing import Any, Self, final

from azure.core.credentials import AccessToken
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy

from kaito.cloud.azure.settings import CredentialMode

FAR_FUTURE = 4102444800
"""2100-01-01, in seconds of the epoch."""


def credential(mode: CredentialMode, *, client_id: str = "", tenant_id: str = "") -> AsyncTokenCredential:
    """The credential for a mode; no request is made yet. Empty ids are taken from the environment."""
    from azure.identity.aio import DefaultAzureCredential, ManagedIdentityCredential, WorkloadIdentityCredential

    given = {name: value for name, value in (("client_id", client_id), ("tenant_id", tenant_id)) if value}
    match mode:
        case "workload":
            return WorkloadIdentityCredential(**given)
        case "managed":
            return ManagedIdentityCredential(client_id=client_id or None)
        case "default":
            return DefaultAzureCredential()
        case "fake":
            return FakeCredential()


@final
class FakeCredential:
    """A token that opens nothing."""

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> AccessToken:
        """The same worthless token each time."""
        del scopes, claims, tenant_id, enable_cae, kwargs
        return AccessToken("fake", FAR_FUTURE)

    async def close(self) -> None:
        """Nothing to close."""

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
class PlainAuthentication(SansIOHTTPPolicy[Any, Any]):  # type: ignore[misc]  # mypy does not follow the SDK
    """Sends the worthless token also over plain HTTP, which the SDK's own bearer policy refuses to do."""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Set the header."""
        request.http_request.headers["Authorization"] = "Bearer fake"
