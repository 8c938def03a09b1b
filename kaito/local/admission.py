"""Configures admission in the local cluster: the workspace controller's webhook is called by URL instead of through a
Service."""

import base64
from pathlib import Path
from typing import Any, final

from kaito.local.certificate import certificate_of, key_of, write_certificate
from kaito.runtime.kinds import MutatingWebhookConfiguration, ValidatingWebhookConfiguration

VALIDATION = "validation.workspace.kaito.sh"
SET_VALIDATION = "validation.inferenceset.kaito.sh"
DEFAULTING = "defaulting.workspace.kaito.sh"


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

    def configurations(
        self,
    ) -> tuple[ValidatingWebhookConfiguration, ValidatingWebhookConfiguration, MutatingWebhookConfiguration]:
        """The webhook configurations; the rules are those of `config/webhook`."""
        validation = self._webhook(VALIDATION, "/validate/workspace.kaito.sh", "Fail", "CREATE", "UPDATE")
        sets = self._webhook(
            SET_VALIDATION, "/validate/inferenceset.kaito.sh", "Fail", "CREATE", "UPDATE", resource="inferencesets"
        )
        defaulting = self._webhook(DEFAULTING, "/default/workspace.kaito.sh", "Ignore", "CREATE", "UPDATE")
        return (
            ValidatingWebhookConfiguration.model_validate(validation),
            ValidatingWebhookConfiguration.model_validate(sets),
            MutatingWebhookConfiguration.model_validate(defaulting),
        )

    def _webhook(
        self, name: str, path: str, failure_policy: str, *operations: str, resource: str = "workspaces"
    ) -> dict[str, Any]:
        rule = {"apiGroups": ["kaito.sh"], "apiVersions": ["v1beta1"], "operations": list(operations)}
        webhook = {
            "name": name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "url": f"https://127.0.0.1:{self.port}{path}",
                "caBundle": base64.b64encode(self._certificate.encode()).decode(),
            },
            "failurePolicy": failure_policy,
            "matchPolicy": "Equivalent",
            "rules": [rule | {"resources": [resource], "scope": "Namespaced"}],
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }
        return {"metadata": {"name": name}, "webhooks": [webhook]}
