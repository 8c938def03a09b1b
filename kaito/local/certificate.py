"""Creates a self-signed certificate for loopback, for the API server and the kubelet of the local cluster."""

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALIDITY = timedelta(days=30)


def write_certificate(path: Path) -> Path:
    """Writes key and certificate into one PEM file, readable by its owner only; the path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kaito local {path.stem}")])
    now = datetime.now(UTC)
    addresses = [x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + certificate.public_bytes(encoding))
    path.chmod(0o600)
    return path


def certificate_of(path: Path) -> str:
    """The certificate alone, without the key, as PEM text."""
    text = path.read_text()
    return text[text.index("-----BEGIN CERTIFICATE-----") :]


def key_of(path: Path) -> str:
    """The key alone, as PEM text."""
    text = path.read_text()
    return text[: text.index("-----BEGIN CERTIFICATE-----")]
