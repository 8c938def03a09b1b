"""TLS towards the API server: odd cluster CAs pass, wrong hosts do not, rotated files are noticed."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kaito.apiserver.http import serve
from kaito.apiserver.server import ApiServer
from kaito.runtime.client.config import ClusterConfig, NoCredentials, TlsConfig
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.client.tls import client_context, fingerprint
from kaito.runtime.errors import ConfigurationError, TransportError

Key = ec.EllipticCurvePrivateKey


pytestmark = pytest.mark.usefixtures("direct")


@dataclass(frozen=True)
class Authority:
    """A CA of the kind some clusters have: no subject or authority key identifiers."""

    name: x509.Name
    key: Key
    pem: bytes


def build(
    subject: x509.Name, issuer: x509.Name, key: Key, signer: Key, *, ca: bool, hosts: Sequence[str] = ()
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if hosts:
        names = [
            x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())


def authority() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    certificate = build(name, name, key, key, ca=True)
    return Authority(name, key, certificate.public_bytes(serialization.Encoding.PEM))


def issue(ca: Authority, directory: Path, *hosts: str, name: str = "server") -> tuple[Path, Path]:
    """A certificate and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = build(subject, ca.name, key, ca.key, ca=False, hosts=hosts)
    crt, pem = directory / f"{name}.crt", directory / f"{name}.key"
    crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return crt, pem


@asynccontextmanager
async def serving(ca: Authority, directory: Path, *hosts: str, port: int = 0) -> AsyncGenerator[str]:
    """An API server whose certificate is for `hosts`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*issue(ca, directory, *hosts))
    async with serve(ApiServer(), port=port, tls=context) as served:
        yield served.url


async def status_of(url: str, material: TlsConfig) -> int:
    transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials(), tls=material))
    try:
        return (await transport.request("GET", "/version")).status
    finally:
        await transport.close()


@pytest.mark.conformance("client-13")
async def test_client_13_a_ca_without_key_identifiers_is_accepted_and_hosts_are_still_checked(tmp_path: Path) -> None:
    ca = authority()
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(ca.pem)
    lenient = TlsConfig(ca_file=str(ca_file))
    async with serving(ca, tmp_path, "127.0.0.1") as url:
        assert await status_of(url, lenient) == 200
        with pytest.raises(TransportError, match=r"(?i)certificate verify failed"):
            await status_of(url, TlsConfig(ca_file=str(ca_file), strict_x509=True))
    async with serving(ca, tmp_path, "elsewhere.example.com") as url:
        with pytest.raises(TransportError, match=r"(?i)not valid for|mismatch"):
            await status_of(url, lenient)
        named = TlsConfig(ca_file=str(ca_file), server_name="elsewhere.example.com")
        assert await status_of(url, named) == 200


async def test_an_untrusted_server_is_rejected_unless_verification_is_off(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(authority().pem)
    async with serving(authority(), tmp_path, "127.0.0.1") as url:
        with pytest.raises(TransportError, match=r"(?i)certificate verify failed"):
            await status_of(url, TlsConfig(ca_file=str(ca_file)))
        assert await status_of(url, TlsConfig(ca_file=str(ca_file), verify=False)) == 200


async def test_a_rotated_ca_is_read_after_the_first_failure(tmp_path: Path) -> None:
    old, new = authority(), authority()
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(old.pem)
    async with serving(old, tmp_path, "127.0.0.1") as url:
        transport = HttpTransport(
            ClusterConfig(server=url, credentials=NoCredentials(), tls=TlsConfig(ca_file=str(ca_file)))
        )
        assert (await transport.request("GET", "/version")).status == 200
    port = int(url.rpartition(":")[2])
    try:
        async with serving(new, tmp_path, "127.0.0.1", port=port):
            with pytest.raises(TransportError):
                await transport.request("GET", "/version")
            ca_file.write_bytes(new.pem)
            assert (await transport.request("GET", "/version")).status == 200
    finally:
        await transport.close()


async def test_a_client_certificate_is_shown_and_the_old_pool_lives_as_long_as_its_streams(tmp_path: Path) -> None:
    ca = authority()
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(ca.pem)
    shown: list[str] = []

    async def who(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peercert")
        shown.append(dict(pair for group in peer["subject"] for pair in group)["commonName"])
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
            if b"/watch" not in head:
                writer.write(b"0\r\n\r\n")

    crt, key = issue(ca, tmp_path, name="first")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=ca.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on from Python 3.13; the test's certificates lack key identifiers
    context.load_cert_chain(*issue(ca, tmp_path, "127.0.0.1"))
    server = await asyncio.start_server(who, "127.0.0.1", 0, ssl=context)
    material = TlsConfig(ca_file=str(ca_file), certificate_file=str(crt), key_file=str(key))
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials(), tls=material))
    try:
        async with transport.stream("GET", "/watch") as watch:
            chunks = watch.chunks()
            assert await anext(chunks) == b"hi"
            for source, target in zip(issue(ca, tmp_path, name="second"), (crt, key), strict=True):
                source.replace(target)
            transport._checked_at -= 61  # pyright: ignore[reportPrivateUsage] -- instead of waiting a minute
            assert (await transport.request("GET", "/x")).body == b"hi"
            assert (await transport.request("GET", "/x")).status == 200
            assert len(transport._retired) == 1  # pyright: ignore[reportPrivateUsage] -- the watch still reads
        await transport.request("GET", "/x")
        assert transport._retired == []  # pyright: ignore[reportPrivateUsage] -- closed after its last user
        assert shown == ["first", "second"]
    finally:
        await transport.close()
        server.close()


async def test_files_that_turn_to_rubbish_leave_the_last_good_ones_in_use(tmp_path: Path) -> None:
    ca = authority()
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(ca.pem)
    async with serving(ca, tmp_path, "127.0.0.1") as url:
        transport = HttpTransport(
            ClusterConfig(server=url, credentials=NoCredentials(), tls=TlsConfig(ca_file=str(ca_file)))
        )
        try:
            assert (await transport.request("GET", "/version")).status == 200
            ca_file.write_text("not a certificate")
            transport._checked_at -= 61  # pyright: ignore[reportPrivateUsage] -- instead of waiting a minute
            assert (await transport.request("GET", "/version")).status == 200
        finally:
            await transport.close()


async def test_many_requests_at_once_look_at_the_files_without_waiting_for_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaito.runtime.client.http.TLS_CHECK_SECONDS", 0.0)
    ca = authority()
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(ca.pem)
    async with serving(ca, tmp_path, "127.0.0.1") as url, asyncio.timeout(20):
        transport = HttpTransport(
            ClusterConfig(server=url, credentials=NoCredentials(), tls=TlsConfig(ca_file=str(ca_file)))
        )
        replies = await asyncio.gather(*(transport.request("GET", "/version") for _ in range(30)))
        assert {reply.status for reply in replies} == {200}
        late = [asyncio.Task(transport.request("GET", "/version")) for _ in range(5)]
        await asyncio.sleep(0)
        await transport.close()
        for result in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(result, TransportError)


def test_the_fingerprint_follows_content_not_names(tmp_path: Path) -> None:
    data, other = tmp_path / "..data_1", tmp_path / "..data_2"
    for directory in (data, other):
        directory.mkdir()
        (directory / "ca.crt").write_text("one")
    link = tmp_path / "ca.crt"
    link.symlink_to(data / "ca.crt")
    material = TlsConfig(ca_file=str(link))
    before = fingerprint(material)
    link.unlink()
    link.symlink_to(other / "ca.crt")
    assert fingerprint(material) == before
    (other / "ca.crt").write_text("two")
    assert fingerprint(material) != before
    link.unlink()
    assert fingerprint(material)


def test_missing_or_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="invalid TLS files"):
        client_context(TlsConfig(ca_file=str(tmp_path / "none.crt")))


@asynccontextmanager
async def raw_tls_server(
    directory: Path,
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    version: ssl.TLSVersion,
) -> AsyncGenerator[HttpTransport]:
    """A client of a server that runs `handle` for every connection, with one version of TLS."""
    ca = authority()
    (directory / "ca.crt").write_bytes(ca.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(*issue(ca, directory, "127.0.0.1"))
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    material = TlsConfig(ca_file=str(directory / "ca.crt"))
    transport = HttpTransport(ClusterConfig(server=url, credentials=NoCredentials(), tls=material))
    try:
        yield transport
    finally:
        await transport.close()
        server.close()
        await asyncio.sleep(0.05)  # the handlers see the end of their connections


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@pytest.mark.sample(1)
@VERSIONS
async def test_large_bodies_pass_both_ways_over_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    body = bytes(range(256)) * 40_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(1):
            head += await reader.readuntil(b"\r\n\r\n")
            received = await reader.readexactly(len(body))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(received))
            writer.write(received)
        writer.close()

    async with raw_tls_server(tmp_path, echo, version) as transport:
        for _ in range(2):
            assert (await transport.request("POST", "/x", body=body)).body == body
        replies = await asyncio.gather(*(transport.request("POST", "/x", body=body) for _ in range(4)))
    assert all(reply.body == body for reply in replies)


@VERSIONS
async def test_a_response_over_tls_may_arrive_byte_by_byte(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    async with raw_tls_server(tmp_path, trickle, version) as transport:
        assert (await transport.request("GET", "/x")).body == b"{}"


@VERSIONS
@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"]
)
async def test_a_cut_connection_is_an_error_over_tls(tmp_path: Path, version: ssl.TLSVersion, sent: bytes) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await writer.drain()
        writer.transport.abort()

    async with raw_tls_server(tmp_path, cut, version) as transport:
        for _ in range(3):
            with pytest.raises(TransportError):
                await transport.request("POST", "/x")
