"""Where the way to a cluster is found, and credential plugins that behave badly."""

import asyncio
import base64
import datetime as dt
import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from kaito.apiserver.http import serve
from kaito.apiserver.server import ApiServer
from kaito.runtime.client import Client, execplugin
from kaito.runtime.client.config import ClusterConfig, in_cluster_config
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.execplugin import ExecCredentials, ExecPlugin
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.errors import ConfigurationError, TransportError
from kaito.runtime.kinds import Namespace

API = "client.authentication.k8s.io/v1"


def write(directory: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None, name: str = "config") -> Path:
    path = directory / name
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "mine"}},
            {"name": "anonymous", "context": {"cluster": "c"}},
        ],
        "clusters": [{"name": "c", "cluster": cluster or {"server": "https://api.example.com:6443/base"}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def plugin(directory: Path, body: str) -> Path:
    """A credential plugin in Python."""
    path = directory / "plugin"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def printing(status: dict[str, Any]) -> str:
    document = {"apiVersion": API, "kind": "ExecCredential", "status": status}
    return f"print({json.dumps(json.dumps(document))})"


def contents(access: ClusterConfig) -> tuple[str, ...]:
    """What the files say; empty for those not given."""
    files = (access.tls.ca_file, access.tls.certificate_file, access.tls.key_file)
    return tuple(Path(file).read_text() if file else "" for file in files)


def mode(file: str) -> int:
    return stat.S_IMODE(Path(file).stat().st_mode)


# Where it is found


async def test_token_namespace_server_and_context(tmp_path: Path) -> None:
    path = write(tmp_path, {"token": "secret"})
    access = await find_cluster_config(path, environment={})
    assert (access.server, access.namespace) == ("https://api.example.com:6443/base", "mine")
    assert await access.credentials.header() == "Bearer secret"
    other = await find_cluster_config(path, "anonymous", environment={})
    assert (await other.credentials.header(), other.namespace) == ("", "")


async def test_inline_certificates_become_private_files(tmp_path: Path) -> None:
    encoded = {name: base64.b64encode(name.encode()).decode() for name in ("ca", "cert", "key")}
    path = write(
        tmp_path,
        {"client-certificate-data": encoded["cert"], "client-key-data": encoded["key"]},
        {
            "server": "https://x",
            "certificate-authority-data": encoded["ca"],
            "tls-server-name": "real",
            "proxy-url": "http://proxy:3128",
        },
    )
    access = await find_cluster_config(path, environment={})
    assert contents(access) == ("ca", "cert", "key")
    assert mode(access.tls.key_file) == 0o600
    assert (access.tls.server_name, access.proxy, access.tls.verify) == ("real", "http://proxy:3128", True)


async def test_basic_authentication_and_insecure_clusters(tmp_path: Path) -> None:
    user = {"username": "me", "password": "pw"}
    access = await find_cluster_config(
        write(tmp_path, user, {"server": "https://x", "insecure-skip-tls-verify": True}), environment={}
    )
    assert await access.credentials.header() == "Basic " + base64.b64encode(b"me:pw").decode()
    assert access.tls.verify is False


@pytest.mark.virtual_time
async def test_a_token_file_is_read_again_every_minute_and_when_rejected(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one")
    access = await find_cluster_config(write(tmp_path, {"tokenFile": "token"}), environment={})
    assert await access.credentials.header() == "Bearer one"
    (tmp_path / "token").write_text("two")
    assert await access.credentials.header() == "Bearer one"
    assert await access.credentials.renew("Bearer one") is True
    assert await access.credentials.header() == "Bearer two"
    (tmp_path / "token").write_text("three")
    await asyncio.sleep(60)
    assert await access.credentials.header() == "Bearer three"
    (tmp_path / "token").unlink()
    await asyncio.sleep(60)
    assert await access.credentials.header() == "Bearer three"


async def test_impersonation(tmp_path: Path) -> None:
    access = await find_cluster_config(write(tmp_path, {"token": "t", "as": "jane"}), environment={})
    assert access.impersonation == (("impersonate-user", "jane"),)
    everything = {
        "as": "jane",
        "as-uid": "1234",
        "as-groups": ["admins", "staff"],
        "as-user-extra": {"example.com/reason": ["on call", "again"], "50%": ["x"]},
    }
    access = await find_cluster_config(write(tmp_path, {"token": "t", **everything}), environment={})
    assert access.impersonation == (
        ("impersonate-user", "jane"),
        ("impersonate-uid", "1234"),
        ("impersonate-group", "admins"),
        ("impersonate-group", "staff"),
        ("impersonate-extra-50%25", "x"),
        ("impersonate-extra-example.com%2Freason", "on call"),
        ("impersonate-extra-example.com%2Freason", "again"),
    )


@pytest.mark.parametrize("nobody", [{"as-groups": ["admins"]}, {"as-uid": "1"}, {"as-user-extra": {"a": ["b"]}}])
async def test_impersonated_groups_need_a_user(tmp_path: Path, nobody: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="need as: the user"):
        await find_cluster_config(write(tmp_path, {"token": "t", **nobody}), environment={})


async def test_the_kubeconfig_variable_is_read_and_its_files_are_merged(tmp_path: Path) -> None:
    first = write(tmp_path, {"token": "a"}, name="first")
    second = write(tmp_path, {"token": "b"}, name="second")
    access = await find_cluster_config(environment={"KUBECONFIG": f"{first}:{second}"})
    assert await access.credentials.header() == "Bearer a"


def pod_files(directory: Path) -> dict[str, str]:
    (directory / "token").write_text("pod-token\n")
    (directory / "ca.crt").write_text("ca")
    (directory / "namespace").write_text("kube-system\n")
    return {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


async def test_inside_a_pod(tmp_path: Path) -> None:
    environment = pod_files(tmp_path)
    access = in_cluster_config(environment, directory=tmp_path)
    assert access is not None
    assert (access.server, access.namespace) == ("https://10.0.0.1:443", "kube-system")
    assert access.tls.ca_file == str(tmp_path / "ca.crt")
    assert await access.credentials.header() == "Bearer pod-token"
    six = in_cluster_config(environment | {"KUBERNETES_SERVICE_HOST": "fd00::1"}, directory=tmp_path)
    assert six is not None
    assert six.server == "https://[fd00::1]:443"


def test_outside_a_pod_and_in_a_pod_without_token(tmp_path: Path) -> None:
    assert in_cluster_config({"KUBERNETES_SERVICE_HOST": ""}, directory=tmp_path) is None
    environment = pod_files(tmp_path)
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigurationError, match="automountServiceAccountToken"):
        in_cluster_config(environment, directory=tmp_path)


async def test_the_error_without_a_configuration_lists_the_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match="KUBECONFIG unset"):
        await find_cluster_config(environment={})
    with pytest.raises(ConfigurationError, match="does not exist"):
        await find_cluster_config(tmp_path / "none", environment={})
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube", {"token": "home"})
    assert await (await find_cluster_config(environment={})).credentials.header() == "Bearer home"


@pytest.mark.parametrize(
    "text", ["", "[]", "clusters: 3", "{{", "current-context: nowhere\nclusters: []\ncontexts: []"]
)
async def test_a_broken_kubeconfig_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="config"):
        await find_cluster_config(path, environment={})


async def test_an_unknown_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="elsewhere"):
        await find_cluster_config(write(tmp_path, {"token": "t"}), "elsewhere", environment={})


async def test_a_real_conversation_by_kubeconfig(tmp_path: Path) -> None:
    async with serve(ApiServer(), token="letmein") as served:
        access = await find_cluster_config(
            write(tmp_path, {"token": "letmein"}, {"server": served.url}), environment={}
        )
        transport = HttpTransport(access)
        try:
            namespace = await Client(transport, field_manager="t").get(Namespace, "default")
            assert namespace.uid
        finally:
            await transport.close()


# Plugins


async def plugin_access(tmp_path: Path, body: str, **config: Any) -> ClusterConfig:
    command = {"apiVersion": API, "command": str(plugin(tmp_path, body)), "interactiveMode": "Never", **config}
    return await find_cluster_config(write(tmp_path, {"exec": command}), environment={})


@pytest.mark.conformance("client-14")
async def test_client_14_a_plugin_that_fills_stderr_first_works(tmp_path: Path) -> None:
    body = "sys.stderr.write('x' * 2**20)\nsys.stderr.flush()\n" + printing({"token": "from-plugin"})
    access = await plugin_access(tmp_path, body)
    assert await access.credentials.header() == "Bearer from-plugin"


@pytest.mark.conformance("client-14")
async def test_client_14_a_hanging_plugin_is_killed_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert execplugin.PLUGIN_SECONDS == 60
    monkeypatch.setattr(execplugin, "PLUGIN_SECONDS", 0.2)
    pid = tmp_path / "pid"
    body = f"open({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(3600)"
    hanging = ExecPlugin({"apiVersion": API, "command": str(plugin(tmp_path, body))}, {})
    with pytest.raises(TransportError, match=r"took longer than 0\.2 s"):
        await hanging.run()
    if pid.exists():  # it had come that far
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


async def test_a_plugin_gets_its_arguments_environment_and_the_cluster(tmp_path: Path) -> None:
    body = (
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "assert info['spec']['interactive'] is False\n"
        "token = '-'.join([sys.argv[1], os.environ['EXTRA'], info['spec']['cluster']['server'].rpartition('/')[2]])\n"
        f"print(json.dumps({{'apiVersion': {API!r}, 'kind': 'ExecCredential', 'status': {{'token': token}}}}))"
    )
    access = await plugin_access(
        tmp_path, body, args=["arg"], env=[{"name": "EXTRA", "value": "env"}], provideClusterInfo=True
    )
    assert await access.credentials.header() == "Bearer arg-env-base"


async def test_a_relative_command_is_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    plugin(tmp_path, printing({"token": "near"}))
    user = {"exec": {"apiVersion": API, "command": "./plugin"}}
    access = await find_cluster_config(write(tmp_path, user), environment={})
    assert await access.credentials.header() == "Bearer near"


async def test_a_plugin_may_give_a_certificate(tmp_path: Path) -> None:
    body = printing({"clientCertificateData": "CERT", "clientKeyData": "KEY"})
    access = await plugin_access(tmp_path, body)
    assert await access.credentials.header() == ""
    assert contents(access) == ("", "CERT", "KEY")
    assert mode(os.path.dirname(access.tls.key_file)) == 0o700  # noqa: PTH120 -- one of its files is asked for


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("sys.stderr.write('not logged in'); sys.exit(3)", "failed with exit code 3: not logged in"),
        ("print('hello')", "did not print an ExecCredential"),
        (printing({}), "neither a token nor a certificate"),
        (
            printing({"token": "x"}).replace("/v1", "/v1beta1"),
            "printed apiVersion client.authentication.k8s.io/v1beta1",
        ),
    ],
)
async def test_the_error_of_a_failed_plugin_contains_its_output(tmp_path: Path, body: str, complaint: str) -> None:
    with pytest.raises(TransportError, match=complaint):
        await plugin_access(tmp_path, body)


@pytest.mark.parametrize(("provider", "plugin"), [("gcp", "gke-gcloud-auth-plugin"), ("azure", "kubelogin")])
async def test_a_removed_provider_names_its_plugin(tmp_path: Path, provider: str, plugin: str) -> None:
    """Its program would run without any limit."""
    user = {"auth-provider": {"name": provider, "config": {"cmd-path": "sleep", "cmd-args": "200"}}}
    with pytest.raises(ConfigurationError, match=f"auth-provider {provider} was removed.*{plugin}"):
        await find_cluster_config(write(tmp_path, user), environment={})


async def test_the_pods_namespace_is_that_of_the_environment(tmp_path: Path) -> None:
    """interop 3.7: manifests set it by the downward API."""
    path = write(tmp_path, {"token": "t"})
    before = (await find_cluster_config(path, environment={})).namespace
    assert before != "kaito-system"
    assert (await find_cluster_config(path, environment={"POD_NAMESPACE": ""})).namespace == before
    assert (await find_cluster_config(path, environment={"POD_NAMESPACE": "kaito-system"})).namespace == "kaito-system"


async def test_the_error_of_a_missing_plugin_contains_the_install_hint(tmp_path: Path) -> None:
    command = {"apiVersion": API, "command": "no-such-plugin", "installHint": "Run: install it"}
    with pytest.raises(TransportError, match=r"did not start.*Run: install it"):
        await find_cluster_config(write(tmp_path, {"exec": command}), environment={})


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"command": "x"}, "has no apiVersion"),
        ({"apiVersion": API}, "has no command"),
        ({"apiVersion": API, "command": "x", "interactiveMode": "Always"}, "is interactive"),
    ],
)
async def test_an_invalid_plugin_entry_is_rejected(tmp_path: Path, config: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        await find_cluster_config(write(tmp_path, {"exec": config}), environment={})


def counting(directory: Path, status: str) -> Path:
    """A plugin that prints a new token each time."""
    body = (
        f"path = {str(directory / 'runs')!r}\n"
        "runs = (int(open(path).read()) if os.path.exists(path) else 0) + 1\n"
        "open(path, 'w').write(str(runs))\n"
        f"status = {{'token': f'token-{{runs}}', {status}}}\n"
        f"print(json.dumps({{'apiVersion': {API!r}, 'kind': 'ExecCredential', 'status': status}}))"
    )
    return plugin(directory, body)


@dataclass
class StoppedClock:
    moment: dt.datetime

    def now(self) -> dt.datetime:
        return self.moment


async def test_a_token_is_replaced_five_minutes_before_it_expires_and_when_rejected(tmp_path: Path) -> None:
    clock = StoppedClock(dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    command = counting(tmp_path, "'expirationTimestamp': '2030-01-01T01:00:00Z'")
    credentials = ExecCredentials(ExecPlugin({"apiVersion": API, "command": str(command)}, {}), clock=clock)
    assert await credentials.header() == "Bearer token-1"
    clock.moment += dt.timedelta(minutes=54)
    assert await credentials.header() == "Bearer token-1"
    answers = await asyncio.gather(*(credentials.renew("Bearer token-1") for _ in range(5)))
    assert answers == [True] * 5
    assert await credentials.header() == "Bearer token-2"  # replaced once for all five
    clock.moment += dt.timedelta(minutes=1)
    assert await credentials.header() == "Bearer token-3"
    command.write_text(f"#!{sys.executable}\nraise SystemExit(1)\n")
    assert await credentials.header() == "Bearer token-3"  # still good for a while
    clock.moment += dt.timedelta(minutes=5)
    with pytest.raises(TransportError):
        await credentials.header()


# What it costs


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the library calls aiohttp with deprecated arguments
async def test_a_missing_oidc_token_is_requested_and_stored(tmp_path: Path) -> None:
    async def well_known(request: web.Request) -> web.Response:
        return web.json_response({"token_endpoint": f"http://{request.host}/token"})

    async def token(request: web.Request) -> web.Response:
        given = await request.post()
        assert (given["grant_type"], given["refresh_token"]) == ("refresh_token", "r1")
        return web.json_response({"id_token": "new", "refresh_token": "r2"})

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", well_known)
    app.router.add_post("/token", token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = {
        "client-id": "kaito",
        "client-secret": "s",
        "idp-issuer-url": f"http://127.0.0.1:{runner.addresses[0][1]}",
        "refresh-token": "r1",
    }
    path = write(tmp_path, {"auth-provider": {"name": "oidc", "config": config}})
    try:
        access = await find_cluster_config(path)
    finally:
        await runner.cleanup()
    assert await access.credentials.header() == "Bearer new"
    stored = yaml.safe_load(path.read_text())["users"][0]["user"]["auth-provider"]["config"]
    assert (stored["id-token"], stored["refresh-token"]) == ("new", "r2")


@pytest.mark.conformance("client-11")
def test_client_11_reading_a_kubeconfig_loads_no_generated_code(tmp_path: Path) -> None:
    path = write(tmp_path, {"token": "t"})
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "import kaito.runtime, kaito.runtime.client\n"
        "assert not [name for name in sys.modules if name.startswith('kubernetes')], 'imported at the top'\n"
        "assert 'aiohttp' not in sys.modules, 'imported at the top'\n"
        "from kaito.runtime.client.connect import find_cluster_config\n"
        f"access = asyncio.run(find_cluster_config(Path({str(path)!r}), environment={{}}))\n"
        "assert access.server\n"
        "assert not [name for name in sys.modules if name.startswith('kubernetes')], 'left behind'\n"
        "assert 'aiohttp' not in sys.modules, 'only OIDC needs it'\n"
        "import kubernetes_asyncio.client.models\n"  # the library still imports completely
        "assert kubernetes_asyncio.client.V1Pod\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=50)
