"""Configures admission in the local cluster: the workspace controller's webhook is called by URL instead of through a
Service."""

import base64
from pathlib import Path
from typing import final

from kaito.local.certificate import certificate_of, key_of, write_certificate
from kaito.runtime.kinds import ValidatingWebhookConfiguration

NAME = "validation.workspace.kaito.sh"
PATH = "/validate/workspace.kaito.sh"


@final
class LocalWebhook:
    """Address and certificate of the admission webhook on this machine."""

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
        """The flags of the workspace controller."""
        return [f"--webhook-port={self.port}", f"--webhook-cert-dir={self._folder}"]

    def configuration(self) -> ValidatingWebhookConfiguration:
        """The webhook configuration; the rules are those of `config/webhook`."""
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
