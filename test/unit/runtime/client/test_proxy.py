"""Proxies of the environment and of the kubeconfig: chosen as client-go chooses them, and really spoken to."""

import asyncio
import base64
import ssl
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.apiserver import ApiServer, serve
from kaito.cloud.azure.transport import guarded_transport
from kaito.runtime.cache import following
from kaito.runtime.certs.authority import new_authority, new_leaf
from kaito.runtime.certs.serving import ServingContext
from kaito.runtime.client import Client, Pods
from kaito.runtime.client.config import in_cluster_config
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.client.proxy import find_proxy, is_loopback
from kaito.runtime.errors import BadRequest, ConfigurationError, TransportError
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.runtime.metrics import Metrics
from kaito.runtime.testing import pod

API = "https://api.example.com:6443"
PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("server", "environment", "expected"),
    [
        (API, {}, ""),
        (API, {"HTTPS_PROXY": PROXY}, PROXY),
        (API, {"https_proxy": PROXY}, PROXY),
        (API, {"HTTPS_PROXY": PROXY, "https_proxy": "http://other:1"}, PROXY),
        (API, {"HTTPS_PROXY": "", "https_proxy": PROXY}, PROXY),
        (API, {"HTTP_PROXY": PROXY}, ""),
        (API, {"ALL_PROXY": PROXY}, ""),
        (API, {"HTTPS_PROXY": "proxy:3128"}, PROXY),
        (API, {"HTTPS_PROXY": "http://me:p%40ss@proxy:3128"}, "http://me:p%40ss@proxy:3128"),
        ("http://api.example.com", {"HTTP_PROXY": PROXY}, PROXY),
        ("http://api.example.com", {"http_proxy": PROXY}, PROXY),
        ("http://api.example.com", {"HTTPS_PROXY": PROXY}, ""),
        ("http://api.example.com", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, ""),
        ("https://localhost:6443", {"HTTPS_PROXY": PROXY}, ""),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": PROXY}, ""),
        ("https://127.8.8.8", {"HTTPS_PROXY": PROXY}, ""),
        ("https://[::1]:6443", {"HTTPS_PROXY": PROXY}, ""),
        ("https://127.0.0.1.nip.io", {"HTTPS_PROXY": PROXY}, PROXY),
    ],
)
def test_the_variables_are_read_as_go_reads_them(server: str, environment: dict[str, str], expected: str) -> None:
    assert find_proxy(server, "", environment) == expected


@pytest.mark.parametrize(
    ("server", "no_proxy", "direct"),
    [
        (API, "api.example.com", True),
        (API, "API.Example.COM", True),
        (API, "example.com", True),
        (API, ".example.com", True),
        (API, "*.example.com", True),
        (API, "other.org, example.com ,", True),
        (API, "ample.com", False),
        (API, "i.example.com", False),
        (API, "api.example.com:6443", True),
        (API, "api.example.com:443", False),
        ("https://api.example.com", "api.example.com:443", True),
        (API, "*", True),
        (API, "*:6443", False),
        (API, "10.0.0.0/8", False),
        (API, "", False),
        ("https://example.com", ".example.com", False),
        ("https://example.com", "*.example.com", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://10.1.2.3", "10.9.9.9/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3:6443", "10.1.2.3:6443", True),
        ("https://10.1.2.3:6443", "10.1.2.3:443", False),
        ("https://10.1.2.3", "nonsense/8", False),
        ("https://[fd00::1]:6443", "fd00::/8", True),
        ("https://[fd00::1]:6443", "fd00::1", True),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", True),
        ("https://[fd00::1]:6443", "[fd00::1]:443", False),
        ("https://[fd00::1]:6443", "[fd00::1]", True),
    ],
)
def test_no_proxy_takes_hosts_domains_addresses_networks_and_ports(server: str, no_proxy: str, direct: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert find_proxy(server, "", {"HTTPS_PROXY": PROXY, name: no_proxy}) == ("" if direct else PROXY)


def test_the_kubeconfig_wins() -> None:
    """Also over NO_PROXY, as in client-go."""
    environment = {"HTTPS_PROXY": "http://other:1", "NO_PROXY": "*"}
    assert find_proxy(API, PROXY, environment) == PROXY


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "socks"])
def test_a_socks_proxy_is_rejected(scheme: str) -> None:
    """Requests would be sent to it as to an HTTP proxy."""
    url = f"{scheme}://me:secret@proxy:1080"
    words = f"{scheme}://proxy is a SOCKS proxy, which is not supported: use an http:// proxy"
    with pytest.raises(ConfigurationError, match=f"proxy-url of the kubeconfig: {words}"):
        find_proxy(API, url, {})
    with pytest.raises(ConfigurationError, match=f"HTTPS_PROXY: {words}") as refused:
        find_proxy(API, "", {"HTTPS_PROXY": url})
    assert "secret" not in str(refused.value)
    assert find_proxy(API, "", {"HTTPS_PROXY": url, "NO_PROXY": "example.com"}) == ""


@pytest.mark.parametrize("url", ["ftp://proxy:1", "http://", "http://proxy:none", "http://[::1", "proxy:3128"])
def test_what_is_not_the_url_of_a_proxy_is_rejected(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"proxy-url of the kubeconfig: .*proxy"):
        find_proxy(API, url, {})


def test_a_pod_uses_the_proxy_of_its_environment(tmp_path: Path) -> None:
    """As client-go, unless NO_PROXY names the cluster's addresses."""
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "HTTPS_PROXY": PROXY}
    access = in_cluster_config(environment, directory=tmp_path)
    assert access is not None
    assert access.proxy == PROXY
    access = in_cluster_config(environment | {"NO_PROXY": "10.96.0.0/12"}, directory=tmp_path)
    assert access is not None
    assert access.proxy == ""


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(ConnectionError, ssl.SSLError, RuntimeError):
        writer.close()


async def _join(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    await asyncio.gather(_pipe(one[0], other[1]), _pipe(other[0], one[1]))


class Behind:
    """An API server with TLS under a name that does not resolve, and a proxy that knows the way."""

    def __init__(self, kubeconfig: Path, proxy_port: int) -> None:
        self.kubeconfig = kubeconfig
        self.port = proxy_port
        self.requested: list[tuple[str, str]] = []
        """Request line and `Proxy-Authorization` of each request."""


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncGenerator[Behind]:
    now = datetime.now(UTC)
    authority = new_authority("proxied", now)
    serving = ServingContext(Metrics())
    serving.load(new_leaf(authority, ["api.example.test"], now))
    kubeconfig = tmp_path / "config"
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(serve(ApiServer(seed=1)))
        upstream = int(served.url.rpartition(":")[2])

        async def terminate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _join((reader, writer), await asyncio.open_connection("127.0.0.1", upstream))

        front = await stack.enter_async_context(_listening(terminate, ssl=serving.context))

        async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = (await reader.readline()).decode().strip()
            login = ""
            while header := (await reader.readline()).decode().strip():
                name, _, value = header.partition(":")
                login = value.strip() if name.lower() == "proxy-authorization" else login
            state.requested.append((line, login))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await _join((reader, writer), await asyncio.open_connection("127.0.0.1", front))

        state = Behind(kubeconfig, await stack.enter_async_context(_listening(proxy)))
        bundle = base64.b64encode(authority.certificate).decode()
        cluster = {"server": "https://api.example.test:6443", "certificate-authority-data": bundle}
        kubeconfig.write_text(yaml.safe_dump(_config(cluster)))
        yield state


def _config(cluster: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "x"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }


@asynccontextmanager
async def _listening(handle: Any, **options: Any) -> AsyncGenerator[int]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.1)  # the pipes see the end of their connections


@asynccontextmanager
async def client_of(behind: Behind, environment: dict[str, str]) -> AsyncGenerator[Client]:
    transport = HttpTransport(await find_cluster_config(behind.kubeconfig, environment=environment))
    try:
        yield Client(transport, field_manager="test")
    finally:
        await transport.close()


def config(name: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"))


async def test_requests_and_watches_go_through_the_proxy_with_its_credentials(behind: Behind) -> None:
    """A tunnel for each connection, TLS to the API server inside, the proxy's credentials outside."""
    url = f"http://me:p%40ss@127.0.0.1:{behind.port}"
    async with client_of(behind, {"HTTPS_PROXY": url}) as client:
        await client.create(config("a"))
        async with asyncio.timeout(20), following(client, ConfigMap) as events:
            assert (await anext(events)).key.name == "a"
            await client.create(config("b"))
            assert (await anext(events)).key.name == "b"
    login = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert set(behind.requested) == {("CONNECT api.example.test:6443 HTTP/1.1", login)}
    assert len(behind.requested) >= 2, "watches have connections of their own"


async def test_connections_to_pods_go_through_the_proxy(behind: Behind) -> None:
    """The in-memory server has no kubelet: its refusal of the upgrade comes back through the tunnel."""
    async with client_of(behind, {"HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{behind.port}"}) as client:
        web = pod("web").with_metadata(namespace="default")
        await client.create(web)
        before = len(behind.requested)
        with pytest.raises(BadRequest, match="no kubelet serves exec of pod web"):
            await Pods(client).run(web, ["true"])
    login = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert behind.requested[before:] == [("CONNECT api.example.test:6443 HTTP/1.1", login)]


async def test_a_proxy_gets_the_full_url_of_a_server_without_tls(tmp_path: Path) -> None:
    """HTTP_PROXY; the proxy reads the request itself."""
    requested: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requested.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\n{"metadata":{},"items":[]}')
        await writer.drain()
        writer.close()

    async with _listening(answer) as port:
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(_config({"server": "http://api.example.test:8001"})))
        async with client_of(Behind(path, port), {"http_proxy": f"http://me:p%40ss@127.0.0.1:{port}"}) as client:
            assert list(await client.list(ConfigMap, namespace="default")) == []
    assert requested[0].startswith("GET http://api.example.test:8001/api/v1/namespaces/default/configmaps")
    assert f"proxy-authorization: basic {base64.b64encode(b'me:p@ss').decode()}".lower() in requested[0].lower()


async def test_no_proxy_goes_directly(behind: Behind) -> None:
    environment = {"https_proxy": f"http://127.0.0.1:{behind.port}", "no_proxy": "example.test"}
    async with client_of(behind, environment) as client:
        with pytest.raises(TransportError):
            await client.list(ConfigMap, namespace="default")
    assert behind.requested == []


async def test_the_error_of_a_proxy_contains_its_url_without_the_password(tmp_path: Path) -> None:

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with _listening(refuse) as port:
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(_config({"server": "https://api.example.test:6443"})))
        async with client_of(Behind(path, port), {"HTTPS_PROXY": f"http://me:secret@127.0.0.1:{port}"}) as client:
            with pytest.raises(TransportError, match="407") as refused:
                await client.list(ConfigMap, namespace="default")
    assert "secret" not in str(refused.value)


async def test_loopback_is_never_proxied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an API server on this machine nor a simulated Azure."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serve(ApiServer(seed=1)) as served:
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(served.kubeconfig()))
        transport = HttpTransport(await find_cluster_config(path))
        await Client(transport, field_manager="test").create(config("a"))
        await transport.close()
        azure = guarded_transport(served.url)
        await azure.open()
        async with azure.session._session.get(served.url + "/version") as answer:
            assert answer.status == 200
        await azure.close()
    assert is_loopback("http://localhost:1/path")
    assert not is_loopback("https://management.azure.com")
