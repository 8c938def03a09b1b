"""Certificates for the webhook server: made and rotated by us, or read from files; never a reason for a failed call.

`authority` makes them, `plan` says which there should be, `keeper` shares them between replicas in a Secret,
`injection` tells the API server about the CA, `files` reads somebody else's, `serving` hands them to TLS.
"""

from kaito.runtime.certs.files import CertificateFiles as CertificateFiles
from kaito.runtime.certs.injection import Identity as Identity, Injector as Injector
from kaito.runtime.certs.keeper import CertificateKeeper as CertificateKeeper
from kaito.runtime.certs.serving import ServingContext as ServingContext
