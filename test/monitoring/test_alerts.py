"""Alerts and dashboard: promtool runs the alerts on series of two replicas, and every expression is valid PromQL."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.generate import dashboard
from hack.tools import Unavailable, locate

HERE = Path(__file__).parent
MONITORING = HERE.parents[1] / "config" / "monitoring"
FILES = sorted(MONITORING.glob("rules-*.yaml"))


def groups(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text())["spec"]["groups"]
    return found


def promtool(*arguments: str, folder: Path) -> str:
    try:
        program = locate("promtool")
    except Unavailable as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    result = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_namespace_of_a_workspace_is_not_renamed() -> None:
    # The PodMonitor's own label is that of the controller's pod.
    documents = yaml.safe_load_all((MONITORING / "pod-monitors.yaml").read_text())
    monitors = {document["metadata"]["name"]: document for document in documents}
    (endpoint,) = monitors["workspace-controller"]["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_rules_are_valid(path: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups(path)}))
    promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml", folder=tmp_path)


def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    together = [group for path in FILES for group in groups(path)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": together}))
    shutil.copy(HERE / "alerts.yaml", tmp_path)
    assert "SUCCESS" in promtool("test", "rules", "alerts.yaml", folder=tmp_path)


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = [case for test in yaml.safe_load((HERE / "alerts.yaml").read_text())["tests"]
             for case in test["alert_rule_test"]]  # fmt: skip
    alerts = {rule["alert"] for path in FILES for group in groups(path) for rule in group["rules"]}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == alerts


def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(dashboard.expressions())]
    assert len(rules) > 25
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "--lint=none", "rules.yaml", folder=tmp_path)
