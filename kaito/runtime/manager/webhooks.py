"""The manager's webhooks: the server and the source of its certificate."""

import random
from collections.abc import Sequence
from typing import Any, final

from kaito.runtime.certs import CABundleInjector, CertificateFiles, CertificateRotator, ServingContext, WebhookTarget
from kaito.runtime.client import Client
from kaito.runtime.clock import Clock
from kaito.runtime.health import Checks
from kaito.runtime.lifespan import StateProvider
from kaito.runtime.manager.runnable import Runnable
from kaito.runtime.manager.settings import Settings
from kaito.runtime.metrics import Metrics
from kaito.runtime.tracing import Tracer
from kaito.runtime.webhook import Conversion, Webhook, WebhookServer


@final
class Webhooks:
    """Webhook server and certificate of one manager.

    Raises:
        ConfigurationError: a path or a kind is used twice.
    """

    def __init__(
        self,
        webhooks: Sequence[Webhook[Any]],
        conversions: Sequence[Conversion[Any]],
        *,
        settings: Settings,
        name: str,
        metrics: Metrics,
        clock: Clock,
        state: StateProvider,
        tracer: Tracer,
    ) -> None:
        self._settings = settings
        self._name = name
        self._clock = clock
        self._conversions = conversions
        self._serving = ServingContext(metrics)
        self._server = WebhookServer(
            webhooks,
            conversions,
            metrics=metrics,
            host=settings.webhook_bind_address or None,
            port=settings.webhook_port,
            client_ca=settings.webhook_client_ca,
            state=state,
            tracer=tracer,
        )

    @property
    def port(self) -> int | None:
        """The port, once started."""
        return self._server.port

    def prepare(self, client: Client, namespace: str, rng: random.Random) -> Runnable:
        """The runnable that supplies the certificate; runs as long as the server."""
        settings = self._settings
        if settings.webhook_cert_dir is not None:
            return CertificateFiles(settings.webhook_cert_dir, self._serving)
        service = settings.webhook_service or self._name
        names = [f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local", *settings.webhook_hosts]
        crds = [f"{conversion.hub.plural}.{conversion.hub.group()}" for conversion in self._conversions]
        injector = CABundleInjector(client, WebhookTarget(service, namespace, settings.webhook_hosts), crds=crds)
        return CertificateRotator(
            client,
            self._serving,
            injector,
            secret=f"{self._name}-webhook-cert",
            namespace=namespace,
            names=names,
            clock=self._clock,
            rng=rng,
        )

    async def start(self) -> None:
        """Waits for a certificate, then listen. Without a certificate the process is alive but not ready."""
        await self._serving.wait_ready()
        await self._server.start(self._serving.context)

    def add_checks(self, readyz: Checks) -> None:
        """Adds the readiness checks: a valid certificate, and a server that listens."""
        readyz.add("webhook-cert", lambda: self._serving.check(self._clock.now()))
        readyz.add("webhook-listening", lambda: None if self._server.is_listening else "not listening yet")

    async def stop(self) -> None:
        """Stops the server."""
        await self._server.stop()
