"""Starting the program outside of a cluster."""

import json
from pathlib import Path

import pytest

from kaito.provisioner.main import main

FLAGS = ("--azure-subscription-id=1", "--azure-resource-group=kaito", "--azure-cluster=kaito")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--node-api=auto"], "no cluster configuration found"),
        (["--node-api=machine"], "workload identity is not configured: AZURE_FEDERATED_TOKEN_FILE not set"),
        (["--node-api=machine", "--azure-credential=fake"], "no cluster configuration found"),
    ],
)
def test_program_outside_of_a_cluster_logs_one_error_and_fails(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for variable in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AZURE_CLIENT_ID", "c")
    monkeypatch.setenv("AZURE_TENANT_ID", "t")
    with pytest.raises(SystemExit) as caught:
        main([*FLAGS, *flags])
    assert caught.value.code == 1
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (failure,) = [line for line in lines if line["level"] == "error"]
    assert message in failure["error"]
