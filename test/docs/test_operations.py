"""Monitoring and troubleshooting follow the code: every metric of an alert exists, and every reason is explained."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from hack.generate import dashboard
from kaito.cloud.metrics import CloudMetrics
from kaito.provisioner.metrics import ProvisionerMetrics
from kaito.runtime.metrics import Metrics
from kaito.workspace.activator.metrics import ActivatorMetrics
from kaito.workspace.metrics import WorkspaceMetrics

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "config" / "monitoring").glob("rules-*.yaml"))
MONITORING = ROOT / "docs" / "operations" / "monitoring.md"
TROUBLESHOOTING = ROOT / "docs" / "operations" / "troubleshooting.md"
REASONS = (ROOT / "kaito" / "api" / "conditions.py", ROOT / "kaito" / "api" / "karpenter" / "conditions.py")

SUCCESS = {
    "AdaptersLoaded",
    "ModelResolved",
    "NodeClaimsReady",
    "MachinesReady",
    "NodesReady",
    "ResourcesReady",
    "WorkspaceInferenceStatusSuccess",
    "WorkspaceSucceeded",
}
"""Reasons of conditions that are True: nothing has to be done about them."""

PROMQL_WORDS = {
    "abs", "absent", "and", "avg", "by", "histogram_quantile", "increase", "le", "max", "min", "on", "or", "rate",
    "sum", "unless",
}  # fmt: skip
PROCESS_METRICS = {"process_resident_memory_bytes"}
"""Metrics of the Prometheus client library."""

VLLM_METRICS = {
    "vllm:generation_tokens_total", "vllm:time_to_first_token_seconds_bucket", "vllm:num_requests_waiting",
}  # fmt: skip
"""Metrics that vLLM exports and documents for production; its package is not installed here."""

MODEL_METRICS = {
    "kaito_http_requests_total",
    "kaito_generation_tokens_total",
    "kaito_time_to_first_token_seconds_bucket",
}
"""Metrics of the model servers, which `docs/reference/metrics.md` lists; their package is not installed here."""


def controller_metrics() -> set[str]:
    registry = CollectorRegistry()
    WorkspaceMetrics().register(registry, lambda: ())
    ActivatorMetrics().register(registry)
    CloudMetrics().register(registry)
    ProvisionerMetrics().register(registry, lambda: ())
    families = [*registry.collect(), *Metrics().registry.collect()]
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {f"{family.name}{suffix}" for family in families for suffix in suffixes.get(family.type, ("",))}


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["spec"]["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def metrics_of(expression: str) -> set[str]:
    """The identifiers of an expression that are not labels, functions or keywords."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on) \([^)]*\)|offset \w+|#.*", " ", expression)
    return set(re.findall(r"[a-zA-Z_:][\w:]*", bare)) - PROMQL_WORDS


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_the_metrics_of_an_alert_exist(rule: dict[str, Any]) -> None:
    named = metrics_of(rule["expr"])
    assert named
    assert named - controller_metrics() == set()


def test_tables_of_the_dashboard_show_a_value_only_where_it_is_more_than_a_condition() -> None:
    tables = [panel for panel in json.loads(dashboard.page())["panels"] if panel["type"] == "table"]
    columns = {panel["title"]: panel["transformations"][0]["options"] for panel in tables}
    hidden = {title: sorted(options["excludeByName"]) for title, options in columns.items()}
    assert hidden == {
        "Workspaces that are not ready": ["Time", "Value"],
        "Cost of each Workspace since its creation": ["Time"],
    }
    assert columns["Cost of each Workspace since its creation"]["renameByName"] == {"Value": "cost"}


@pytest.mark.parametrize("expression", sorted(set(dashboard.expressions())))
def test_the_metrics_of_the_dashboard_exist(expression: str) -> None:
    named = metrics_of(expression)
    assert named
    listed = set(re.findall(r"`(kaito_\w+)`", (ROOT / "docs" / "reference" / "metrics.md").read_text()))
    servers = {f"{name}{suffix}" for name in listed for suffix in ("", "_bucket")} | VLLM_METRICS
    assert named - controller_metrics() - servers - PROCESS_METRICS == set()


def test_the_expressions_of_the_page_use_existing_metrics() -> None:
    table = MONITORING.read_text().split("## What to watch")[1].split("## Alerts")[0]
    expressions = re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", table, flags=re.MULTILINE)
    named = {metric for expression in expressions for metric in metrics_of(expression)}
    assert len(expressions) > 5
    assert named - controller_metrics() - MODEL_METRICS == set()
    listed = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert [metric for metric in MODEL_METRICS if f"`{metric.removesuffix('_bucket')}`" not in listed] == []


def test_the_page_explains_exactly_the_alerts_of_the_rules() -> None:
    table = MONITORING.read_text().split("## Alerts")[1].split("## Logs")[0]
    explained = re.findall(r"\b(Kaito[A-Z]\w+)\b", table)
    assert sorted(explained) == sorted({rule["alert"] for rule in rules()})


def reasons() -> set[str]:
    found: set[str] = set()
    for source in REASONS:
        text = source.read_text()
        start = text[: re.search(r"^# ─+ reasons", text, flags=re.MULTILINE).start()].count("\n")  # type: ignore[union-attr]
        for node in ast.parse(text).body:
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.value, ast.Constant)
                and node.lineno > start
                and re.fullmatch(r"[A-Z]\w+", str(node.value.value))
            ):
                found.add(str(node.value.value))
    return found


def test_troubleshooting_explains_every_reason() -> None:
    first_cells = re.findall(r"^\| ((?:`[A-Z]\w+`(?:, )?)+) \|", TROUBLESHOOTING.read_text(), flags=re.MULTILINE)
    explained = {reason for cell in first_cells for reason in re.findall(r"`(\w+)`", cell)}
    assert sorted(reasons() - explained - SUCCESS - {"WorkspaceDeleting"}) == []
    types = {"AdaptersReady", "MachineReady", "NodeClaimReady", "InferenceReady", "JobStarted"}
    assert sorted(explained - reasons() - types) == []
