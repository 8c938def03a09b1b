"""Admission webhooks (defaulting and validation) and conversion webhooks.

Users declare `Webhook`s and `Conversion`s and give them to the manager, which serves them over TLS with a certificate
that it issues and renews (`kaito.runtime.certs`). `admission_manifests` and `conversion_manifest` render the
configurations for the API server. The server is loaded on first use, so that declaring webhooks does not load the
network.
"""

from typing import TYPE_CHECKING, Any

from kaito.runtime.lazy import load
from kaito.runtime.webhook.conversion import (
    Conversion as Conversion,
    ConversionError as ConversionError,
    Spoke as Spoke,
)
from kaito.runtime.webhook.declaration import Admission as Admission, Problem as Problem, Webhook as Webhook
from kaito.runtime.webhook.manifests import (
    admission_manifests as admission_manifests,
    conversion_manifest as conversion_manifest,
)

if TYPE_CHECKING:
    from kaito.runtime.webhook.server import WebhookServer as WebhookServer


def __getattr__(name: str) -> Any:
    """Loads a name from its module."""
    return load(__name__, name, {"WebhookServer": "server"})
