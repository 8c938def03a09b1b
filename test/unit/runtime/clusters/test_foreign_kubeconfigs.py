"""Kubeconfigs from a Secret: whatever they contain, no program runs, no file is read, and no value is in an error."""

import base64
import builtins
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.runtime.client.tls import client_context
from kaito.runtime.clusters import KubeconfigRefused, parse_kubeconfig
from kaito.runtime.clusters.kubeconfig import SIZE_LIMIT
from test.support.cluster_fleet import kubeconfig
from test.unit.runtime.client.test_tls import authority, issue

SERVER = "https://east.example:6443"
KEY = "s3cret-value"


def document(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(kubeconfig(SERVER)), **changes}


def dump(**changes: Any) -> bytes:
    return yaml.safe_dump(document(**changes)).encode()


def refused(text: bytes, **options: Any) -> str:
    with pytest.raises(KubeconfigRefused) as caught:
        parse_kubeconfig(text, environment={}, **options)
    assert KEY not in str(caught.value)
    return str(caught.value)


PROGRAMS_AND_FILES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"exec": {"command": "/bin/sh", "args": ["-c", "touch /tmp/owned"]}}, {}, "user.exec: it would run a program"),
    ({"token": KEY, "exec": {"command": "sh"}}, {}, "user.exec"),
    ({"auth-provider": {"name": "gcp", "config": {"cmd-path": "/bin/sh"}}}, {}, "user.auth-provider"),
    ({"auth-provider": {"name": "oidc", "config": {"idp-certificate-authority": "/etc/passwd"}}}, {}, "program"),
    ({"tokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"}, {}, "user.tokenFile: it names a file"),
    ({"client-certificate": "/etc/passwd", "client-key": "/etc/shadow"}, {}, "user.client-certificate"),
    ({}, {"certificate-authority": "/etc/passwd"}, "cluster.certificate-authority: it names a file"),
    ({"as-groups": ["system:masters"], "as": "x"}, {}, "user.as-groups"),
    ({"tokenfile": "/etc/passwd"}, {}, "the field is not known"),
    ({}, {"server-file": "/etc/passwd"}, "the field is not known"),
]


@pytest.mark.conformance("clusters-8")
@pytest.mark.parametrize(("user", "cluster", "expected"), PROGRAMS_AND_FILES)
def test_programs_and_files_are_refused_by_name(
    user: dict[str, Any], cluster: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: object, **_: object) -> None:
        raise AssertionError(arguments)

    text = kubeconfig(SERVER, user=user, cluster=cluster)
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", forbidden)
        patched.setattr(os, "system", forbidden)
        patched.setattr(builtins, "open", forbidden)
        patched.setattr(Path, "read_text", forbidden)
        patched.setattr(Path, "read_bytes", forbidden)
        message = refused(text)
    assert expected in message


MALFORMED: list[tuple[bytes, str]] = [
    (b"", "the document is not a mapping"),
    (b"[]", "the document is not a mapping"),
    (b"token: [" + KEY.encode(), "it is not YAML"),
    (b"\xff\xfe\x00" + KEY.encode(), "it is not YAML"),
    (b"a: !!python/object/apply:os.system [touch /tmp/owned]", "it is not YAML"),
    (b"a: !!timestamp 2024-99-99", "it is not YAML"),
    (b"a: &a [1]\nb: [*a, *a]", "YAML aliases"),
    (b"[" * 5000, "nested too deeply"),
    (b"#" * (SIZE_LIMIT + 1), "bytes, and"),
    (b"---\na: 1\n---\nb: 2\n", "it is not YAML"),
]


@pytest.mark.parametrize(("text", "expected"), MALFORMED)
def test_what_is_no_kubeconfig_is_refused(text: bytes, expected: str) -> None:
    assert expected in refused(text)


def test_contexts_are_looked_up_strictly() -> None:
    assert "contexts has no entry named 'other'" in refused(kubeconfig(SERVER), context="other")
    assert "contexts has no entry named 'gone'" in refused(dump(**{"current-context": "gone"}))
    assert "no current-context" in refused(dump(**{"current-context": ""}))
    assert "clusters has no entry named 'c'" in refused(dump(clusters=[]))
    assert "users has no entry named 'u'" in refused(dump(users=[{"name": "other", "user": {}}]))
    twice = [{"name": "c", "cluster": {"server": SERVER}}, {"name": "c", "cluster": {"server": "https://evil"}}]
    assert "clusters has 2 entries named 'c'" in refused(dump(clusters=twice))
    assert "contexts is not a list" in refused(dump(contexts="main"))
    assert "current-context of the document is not a text" in refused(dump(**{"current-context": ["main"]}))


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("http://east.example", "is not https"),
        ("file:///etc/passwd", "is not a URL"),
        ("unix:///var/run/docker.sock", "is not a URL"),
        ("https://user:" + KEY + "@east.example", "is not a URL"),
        ("https://east.example:port", "is not a URL"),
        ("https://east.example\r\nx: y", "control characters"),
        ("https://east.example/a b", "spaces"),
        ("", "is not a URL"),
    ],
)
def test_servers_have_to_be_https(server: str, expected: str) -> None:
    assert expected in refused(kubeconfig(server))


def test_headers_cannot_be_injected() -> None:
    assert "control characters" in refused(kubeconfig(SERVER, user={"token": f"{KEY}\r\nx-evil: 1"}))
    assert "control characters" in refused(kubeconfig(SERVER, user={"token": "t", "as": f"x\r\n{KEY}: 1"}))
    assert "characters that a header" in refused(kubeconfig(SERVER, user={"token": f"{KEY} ü"}))
    assert "not ASCII" in refused(kubeconfig(SERVER, user={"token": "t", "as": "ü"}))


def test_verification_is_not_turned_off_unless_the_program_allows_it() -> None:
    text = kubeconfig(SERVER, cluster={"insecure-skip-tls-verify": True})
    assert "insecure-skip-tls-verify" in refused(text)
    assert not parse_kubeconfig(text, insecure=True, environment={}).tls.verify
    assert "not a boolean" in refused(kubeconfig(SERVER, cluster={"insecure-skip-tls-verify": "no"}))
    assert parse_kubeconfig(kubeconfig("http://east.example"), insecure=True, environment={}).server


def test_certificates_have_to_be_in_the_text_and_valid() -> None:
    garbage = base64.b64encode(b"-----BEGIN CERTIFICATE-----\n" + KEY.encode()).decode()
    path = base64.b64encode(b"/etc/passwd").decode()
    assert "not valid" in refused(kubeconfig(SERVER, cluster={"certificate-authority-data": garbage}))
    assert "not base64 of a PEM" in refused(kubeconfig(SERVER, cluster={"certificate-authority-data": path}))
    assert "not base64 of a PEM" in refused(kubeconfig(SERVER, cluster={"certificate-authority-data": "/etc/passwd"}))
    assert "belong together" in refused(kubeconfig(SERVER, user={"client-key-data": garbage}))


def test_certificates_in_the_text_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = authority()
    certificate, key = issue(ca, tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    config = parse_kubeconfig(
        kubeconfig(
            SERVER,
            user={
                "client-certificate-data": base64.b64encode(certificate.read_bytes()).decode(),
                "client-key-data": base64.b64encode(key.read_bytes()).decode(),
            },
            cluster={"certificate-authority-data": base64.b64encode(ca.pem).decode()},
        ),
        environment={},
    )
    context = client_context(config.tls)
    assert context.cert_store_stats()["x509_ca"] == 1
    assert "PRIVATE KEY" not in repr(config)
    encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n"
    user = {
        "client-certificate-data": base64.b64encode(certificate.read_bytes()).decode(),
        "client-key-data": base64.b64encode(encrypted).decode(),
    }
    assert "not valid" in refused(kubeconfig(SERVER, user=user))


async def test_no_credentials_means_none_and_never_those_of_the_process() -> None:
    config = parse_kubeconfig(kubeconfig(SERVER, user={}), environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert await config.credentials.header() == ""
    assert not await config.credentials.renew("")
    assert config == parse_kubeconfig(kubeconfig(SERVER, user={}), environment={})
    without_user = dump(contexts=[{"name": "main", "context": {"cluster": "c"}}])
    assert await parse_kubeconfig(without_user, environment={}).credentials.header() == ""


async def test_tokens_and_passwords_are_used() -> None:
    config = parse_kubeconfig(kubeconfig(SERVER, user={"token": KEY}), environment={})
    assert await config.credentials.header() == f"Bearer {KEY}"
    assert KEY not in repr(config)
    assert config == parse_kubeconfig(kubeconfig(SERVER, user={"token": KEY}), environment={})
    assert config != parse_kubeconfig(kubeconfig(SERVER, user={"token": "other"}), environment={})
    basic = parse_kubeconfig(kubeconfig(SERVER, user={"username": "u", "password": "p:w"}), environment={})
    assert await basic.credentials.header() == "Basic " + base64.b64encode(b"u:p:w").decode()
    assert "both a token and a password" in refused(kubeconfig(SERVER, user={"token": "t", "username": "u"}))


def test_a_proxy_of_the_kubeconfig_and_of_the_environment() -> None:
    text = kubeconfig(SERVER, cluster={"proxy-url": "http://proxy.example:3128"})
    assert parse_kubeconfig(text, environment={}).proxy == "http://proxy.example:3128"
    assert parse_kubeconfig(kubeconfig(SERVER), environment={"HTTPS_PROXY": "http://p:1"}).proxy == "http://p:1"
    assert "proxy-url" in refused(kubeconfig(SERVER, cluster={"proxy-url": f"socks5://u:{KEY}@p"}))
