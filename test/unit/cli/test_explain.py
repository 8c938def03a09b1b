"""`kaito explain`: text, data, exit codes."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito.cli.explain.output import as_data, render
from kaito.cli.main import main, parser
from kaito.diagnosis import Cause, Diagnosis, EventNote, Link, NextStep
from kaito.planning.style import Style, duration

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
START = NOW - timedelta(minutes=12)


def diagnosis() -> Diagnosis:
    event = EventNote(reason="OfferRefused", note="0 cores left", warning=True, at=NOW - timedelta(seconds=5), count=3)
    return Diagnosis(
        namespace="default",
        name="phi",
        task="inference",
        state="failing",
        serving=False,
        summary="is not ready",
        created=START,
        cause=Cause(kind="Machine", name="ws1", reason="QuotaExceeded", message="no cores " * 20, since=START),
        next=(
            NextStep(what="the provisioner makes the next launch attempt", at=NOW + timedelta(seconds=500)),
            NextStep(what="something"),
        ),
        advice=("request quota", "$ kubectl annotate machine ws1 kaito.sh/retry-launch=now" + " " * 80 + "# long"),
        chain=(
            Link(kind="Workspace", name="phi", state="failed", summary="ResourceReady=False", since=START),
            Link(kind="Machine", name="ws1", state="failed", summary="Launched=False", since=START, event=event),
            *(Link(kind="Node", name=f"n{number}", state="ok", summary="") for number in range(9)),
            Link(kind="Server", name="http://phi.default.svc", state="absent", summary=""),
        ),
        notes=("events could not be read: forbidden",),
    )


def test_text() -> None:
    lines = render(diagnosis(), Style(), now=NOW, width=84).splitlines()
    assert lines[0] == "Workspace default/phi: is not ready, created 12 min ago"
    assert lines[2] == "cause    QuotaExceeded on Machine ws1, since 11:48:00Z (12 min)"
    assert "next     12:08:20Z (in 8 min 20 s): the provisioner makes the next launch attempt" in lines, lines
    assert "         something" in lines
    assert "do       request quota" in lines
    (command,) = [line for line in lines if "$ kubectl" in line]
    assert command.endswith("# long"), "commands are not wrapped"
    assert any(line.startswith("         ! Machine    ws1") for line in lines)
    assert "             5 s ago x3: OfferRefused: 0 cores left" in lines
    assert sum("+ Node" in line for line in lines) == 7
    assert any("3 more, all ready" in line for line in lines)
    assert lines[-1] == "note     events could not be read: forbidden"
    assert all(len(line) <= 84 for line in lines if line != command)
    assert "\033" not in "".join(lines)


def test_colors_only_where_the_output_can_show_them() -> None:
    assert "\033[31m" in render(diagnosis(), Style(colors=True), now=NOW)
    assert Style.of(io.StringIO()) == Style()


def test_data_leaves_out_what_is_unknown() -> None:
    data = as_data(diagnosis())
    assert json.loads(json.dumps(data)) == data
    assert data["cause"] == {
        "kind": "Machine",
        "name": "ws1",
        "reason": "QuotaExceeded",
        "message": "no cores " * 20,
        "since": "2030-01-01T11:48:00Z",
    }
    assert data["next"] == [
        {"what": "the provisioner makes the next launch attempt", "at": "2030-01-01T12:08:20Z"},
        {"what": "something"},
    ]
    assert data["chain"][1]["event"]["count"] == 3
    assert "since" not in data["chain"][2]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (3605, "1 h"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_as_a_plug_in_of_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/kubectl-kaito", "explain", "phi"])
    assert parser().prog == "kubectl kaito"


def test_a_cluster_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "c", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(kubeconfig))
    with pytest.raises(SystemExit) as ended:
        main(["explain", "phi", f"--kubeconfig={path}"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("kaito explain: the cluster cannot be read: ")


def test_contradicting_namespaces(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["explain", "a/phi", "-n", "b"])
    assert ended.value.code == 2
    assert "different namespaces" in capsys.readouterr().err
