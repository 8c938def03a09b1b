"""Admission in the local cluster: the workspace controller's webhook, reached by URL instead of through a Service."""

import base64
from pathlib import Path
from typing import final

from kaito.local.certificate import certificate_of, key_of, write_certificate
from kaito.runtime.kinds import ValidatingWebhookConfiguration

NAME = "validation.workspace.kaito.sh"
PATH = "/validate/workspace.kaito.sh"


@final
class LocalWebhook:
    """Where the controller serves admission on this machine, with a certificate of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        both = write_certificate(folder / "webhook.pem")
        self.port = port
        self._folder = folder
        self._certificate = certificate_of(both)
        (folder / "tls.crt").write_text(self._certificate)
        (folder / "tls.key").write_text(key_of(both))
        (folder / "tls.key").chmod(0o600)

    def flags(self) -> list[str]:
        """What the workspace controller is told."""
        return [f"--webhook-port={self.port}", f"--webhook-cert-dir={self._folder}"]

    def configuration(self) -> ValidatingWebhookConfiguration:
        """What the API server is told; the rules are those of `config/webhook`."""
        rule = {"apiGroups": ["kaito.sh"], "apiVersions": ["v1beta1"], "operations": ["CREATE", "UPDATE"]}
        webhook = {
            "name": NAME,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "url": f"https://127.0.0.1:{self.port}{PATH}",
                "caBundle": base64.b64encode(self._certificate.encode()).decode(),
            },
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "rules": [rule | {"resources": ["workspaces"], "scope": "Namespaced"}],
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }
        return ValidatingWebhookConfiguration.model_validate({"metadata": {"name": NAME}, "webhooks": [webhook]})
