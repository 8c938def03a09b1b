"""Certificates of the webhook server: issued and rotated by the framework, or read from files.

`authority` issues them, `plan` decides which there should be, `rotator` shares them between replicas in a Secret,
`injection` writes the CA into the configurations of the API server, `files` reads certificates of others
(cert-manager), `serving` is the TLS context. No step of a rotation fails a call of the API server.
"""

from kaito.runtime.certs.files import CertificateFiles as CertificateFiles
from kaito.runtime.certs.injection import CABundleInjector as CABundleInjector, WebhookTarget as WebhookTarget
from kaito.runtime.certs.rotator import CertificateRotator as CertificateRotator
from kaito.runtime.certs.serving import ServingContext as ServingContext
