"""The process builds settings from flags, and a manager for every node API."""

import runpy
import sys
from pathlib import Path

import pytest

from kaito.runtime.manager import Settings
from kaito.workspace.flags import parse
from kaito.workspace.main import main, workspace_manager
from kaito.workspace.settings import NodeApi, WorkspaceSettings

SHIM = Path(__file__).parents[3] / "cmd" / "workspace-controller"


def test_flags_reach_the_manager() -> None:
    invocation = parse(
        [
            "--metrics-bind-address=127.0.0.1:9",
            "--health-probe-bind-address=0",
            "--leader-elect=false",
            "--kubeconfig=/tmp/kubeconfig",
            "--kube-client-qps=30",
            "--kube-client-burst=50",
            "--log-format=console",
            "--log-level=debug",
            "--webhook-port=1234",
            "--webhook-hosts=127.0.0.1,localhost",
        ],
        {},
    )
    settings = invocation.manager
    assert settings.metrics_bind_address == "127.0.0.1:9"
    assert settings.health_probe_bind_address == "0"
    assert settings.leader_elect is False
    assert str(settings.kubeconfig) == "/tmp/kubeconfig"
    assert (settings.kube_client_qps, settings.kube_client_burst) == (30, 50)
    assert (settings.log_format, settings.log_level) == ("console", "debug")
    assert (settings.webhook_port, settings.webhook_hosts) == (1234, ("127.0.0.1", "localhost"))


@pytest.mark.parametrize("webhook", [True, False])
@pytest.mark.parametrize("node_api", list(NodeApi))
async def test_the_controller_fits_together(node_api: NodeApi, webhook: bool) -> None:
    manager = workspace_manager(WorkspaceSettings(node_api=node_api), Settings(), webhook=webhook)
    assert manager.name == "workspace-controller"
    assert manager.field_manager == "kaito-workspace-controller"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("workspace-controller 0.")


def test_the_shim_runs_by_its_path(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["workspace-controller", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(SHIM), run_name="__main__")
    assert "workspace-controller" in capsys.readouterr().out
