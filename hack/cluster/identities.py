"""Issues the certificate authority, the client certificates and the kubeconfigs of a cluster.

The names are those that Kubernetes itself expects (`system:kube-scheduler`, `system:node:NAME`), so that the Node and
RBAC authorizers apply to every component as in an installation by kubeadm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hack.cluster.layout import ADDRESS, API_SERVER, KUBERNETES_SERVICE, Layout

_LIFETIME = timedelta(days=30)


@dataclass(frozen=True)
class Identity:
    """Subject of a client certificate."""

    component: str
    user: str
    group: str


_IDENTITIES = (
    Identity("admin", "admin", "system:masters"),
    Identity("kube-controller-manager", "system:kube-controller-manager", "system:kube-controller-manager"),
    Identity("kube-scheduler", "system:kube-scheduler", "system:kube-scheduler"),
    Identity("kube-proxy", "system:kube-proxy", "system:node-proxier"),
    Identity("coredns", "system:coredns", "kaito:coredns"),
)
_KUBELET_GROUP = "system:nodes"


def issue(layout: Layout) -> None:
    """Writes everything that is missing."""
    folder = layout.certificates
    authority = Authority(folder)
    if not (folder / "sa.key").exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        _write_private(folder / "sa.key", _pem(key))
    authority.issue(
        folder / "apiserver",
        user="kube-apiserver",
        group="kubernetes",
        names=("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"),
        addresses=("127.0.0.1", ADDRESS, KUBERNETES_SERVICE),
    )
    authority.issue(folder / "registry", user="registry", group="kaito", addresses=(ADDRESS,))
    for identity in _IDENTITIES:
        authority.issue(folder / identity.component, user=identity.user, group=identity.group)
        _write_kubeconfig(layout, identity)


def issue_kubelet(layout: Layout, node: str) -> None:
    """Writes the certificates of a node's kubelet and its kubeconfig, unless they exist for this name.

    The Node authorizer and NodeRestriction let a kubelet act only for the node that its certificate names.
    """
    authority = Authority(layout.certificates)
    identity = Identity(layout.kubelet, f"system:node:{node}", _KUBELET_GROUP)
    server = layout.certificates / f"{layout.kubelet}-server"
    for path in (layout.certificates / identity.component, server):
        if _common_name(path.with_suffix(".crt")) != identity.user:
            path.with_suffix(".crt").unlink(missing_ok=True)
    authority.issue(layout.certificates / identity.component, user=identity.user, group=identity.group)
    authority.issue(server, user=identity.user, group=identity.group, names=(node,), addresses=(layout.node_address,))
    _write_kubeconfig(layout, identity)


def _common_name(certificate: Path) -> str | None:
    if not certificate.exists():
        return None
    subject = x509.load_pem_x509_certificate(certificate.read_bytes()).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


class Authority:
    """Certificate authority whose key lies in the folder; created on first use."""

    def __init__(self, folder: Path) -> None:
        certificate, key = folder / "ca.crt", folder / "ca.key"
        if not certificate.exists():
            new = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster-ca")])
            built = (
                _builder(name, name, new)
                .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
                .sign(new, hashes.SHA256())
            )
            _write_private(key, _pem(new))
            certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{key} is not an EC key")
        self._key = loaded
        self._certificate = x509.load_pem_x509_certificate(certificate.read_bytes())

    def issue(
        self, path: Path, *, user: str, group: str, names: Sequence[str] = (), addresses: Sequence[str] = ()
    ) -> None:
        """Writes `path`.crt and `path`.key, unless they exist."""
        if path.with_suffix(".crt").exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, group),
                x509.NameAttribute(NameOID.COMMON_NAME, user),
            ]
        )
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if addresses else [])]
        builder = _builder(subject, self._certificate.subject, key).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        alternatives = [
            *(x509.DNSName(name) for name in names),
            *(x509.IPAddress(IPv4Address(address)) for address in addresses),
        ]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write_private(path.with_suffix(".key"), _pem(key))
        path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _write_kubeconfig(layout: Layout, identity: Identity) -> None:
    folder = layout.certificates
    cluster = {"server": API_SERVER, "certificate-authority": str(folder / "ca.crt")}
    user = {
        "client-certificate": str(folder / f"{identity.component}.crt"),
        "client-key": str(folder / f"{identity.component}.key"),
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": layout.name, "cluster": cluster}],
        "users": [{"name": identity.component, "user": user}],
        "contexts": [{"name": layout.name, "context": {"cluster": layout.name, "user": identity.component}}],
        "current-context": layout.name,
    }
    _write_private(layout.kubeconfig_of(identity.component), yaml.safe_dump(document).encode())
