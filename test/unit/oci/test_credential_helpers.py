"""Credentials of helper programs, which `docker login` configures on a user's machine."""

import json
from pathlib import Path

import pytest
from kaito_oci.credentials import Credentials, find_credentials
from kaito_oci.reference import parse_reference


def helper(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def found(tmp_path: Path, configuration: dict[str, object], reference: str = "r.io/x:1") -> list[Credentials]:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(configuration))
    return find_credentials(parse_reference(reference), [file])


ANSWER = """read server; [ "$1" = get ] && echo "{\\"Username\\": \\"u\\", \\"Secret\\": \\"of $server\\"}" """


def test_the_helper_of_the_registry_is_asked(tmp_path: Path, programs: Path) -> None:
    helper(programs, "one", ANSWER)
    helper(programs, "other", "exit 1")
    configuration: dict[str, object] = {"credHelpers": {"r.io": "one"}, "credsStore": "other"}
    assert found(tmp_path, configuration) == [Credentials("u", "of r.io")]
    assert found(tmp_path, configuration, "else.io/x:1") == []
    assert found(tmp_path, {"credsStore": "one"}, "me/x:1") == [Credentials("u", "of https://index.docker.io/v1/")]


def test_an_entry_of_the_file_is_preferred(tmp_path: Path, programs: Path) -> None:
    helper(programs, "one", ANSWER)
    auths = {"r.io": {"username": "file", "password": "p"}}
    assert found(tmp_path, {"auths": auths, "credsStore": "one"}) == [Credentials("file", "p")]
    assert found(tmp_path, {"auths": {"r.io": {}}, "credsStore": "one"}) == [Credentials("u", "of r.io")]


def test_an_identity_token_is_recognized(tmp_path: Path, programs: Path) -> None:
    helper(programs, "acr", """echo '{"Username": "<token>", "Secret": "t"}'""")
    assert found(tmp_path, {"credsStore": "acr"}) == [Credentials(identity_token="t")]


@pytest.mark.parametrize("script", ["exit 1", "echo not json", "echo '[]'", """echo '{"Username": "u"}'"""])
def test_a_helper_without_credentials_leaves_anonymous_access(tmp_path: Path, programs: Path, script: str) -> None:
    helper(programs, "one", script)
    assert found(tmp_path, {"credsStore": "one"}) == []


@pytest.mark.parametrize("name", ["absent", "../one", "", 3, None])
def test_a_helper_that_is_not_installed_is_ignored(tmp_path: Path, programs: Path, name: object) -> None:
    helper(programs, "one", ANSWER)
    assert found(tmp_path, {"credsStore": name, "credHelpers": {"else.io": "one"}}) == []
