"""Renders the Grafana dashboard, `config/monitoring/dashboard.json`: Workspaces, nodes, controllers and model servers.

A panel is a title, a unit and expressions. Gauges of Workspaces and claims come from the leader only; those that every
replica exports select it by a join, since a standby does no work.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PATH: Final = Path("config", "monitoring", "dashboard.json")
TITLE: Final = "Kaito"
UID: Final = "kaito"
RATE: Final = "$__rate_interval"

COLUMNS: Final = 24
HEIGHT: Final = 8

LEADER: Final = "and on (pod) leader_election_master_status == 1"


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel: `queries` are pairs of an expression and the legend of its series."""

    title: str
    description: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    value: str = ""
    """Column of a table with the value of the expression; without one the value is hidden."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of panels with a title."""

    title: str
    panels: Sequence[Panel]


def quantile(share: float, metric: str, *labels: str, selector: str = "") -> str:
    """Returns the quantile of a histogram over the dashboard's interval."""
    by = ", ".join(("le", *labels))
    return f"histogram_quantile({share}, sum by ({by}) (rate({metric}_bucket{selector}[{RATE}])))"


def rate(metric: str, *labels: str, selector: str = "") -> str:
    """Returns the rate of a counter."""
    return f"sum by ({', '.join(labels)}) (rate({metric}{selector}[{RATE}]))"


MODELS: Final = '{namespace=~"$namespace", kaito_sh_workspace=~"$workspace"}'
BY_MODEL: Final = ("namespace", "kaito_sh_workspace")
OF_MODEL: Final = f"sum by ({', '.join(BY_MODEL)})"
GPU_MEMORY: Final = f"kaito_gpu_memory_used_bytes{MODELS} / kaito_gpu_memory_total_bytes{MODELS}"
MODEL: Final = "{{namespace}}/{{kaito_sh_workspace}}"

ROWS: Final[Sequence[Row]] = (
    Row(
        "Workspaces",
        (
            Panel(
                "Workspaces by phase",
                "Number of Workspaces in each phase.",
                [("sum by (phase) (kaito_workspaces)", "{{phase}}")],
                stacked=True,
            ),
            Panel(
                "Workspaces by preset",
                "Inference Workspaces of each preset.",
                [("sum by (preset_name) (kaito_preset_workspaces)", "{{preset_name}}")],
                stacked=True,
            ),
            Panel(
                "Time to the first answer",
                "From the creation of a Workspace to its first answer.",
                [
                    (quantile(0.5, "kaito_workspace_time_to_ready_seconds"), "50 %"),
                    (quantile(0.9, "kaito_workspace_time_to_ready_seconds"), "90 %"),
                ],
                unit="s",
            ),
            Panel(
                "Workspaces that are not ready",
                "Workspaces that failed, are starting, or are being deleted.",
                [('max by (namespace, name, phase) (kaito_workspace_phase{phase!="succeeded"}) == 1', "")],
                kind="table",
                width=24,
            ),
        ),
    ),
    Row(
        "Costs",
        (
            Panel(
                "Cost per hour by namespace",
                "Cost of the nodes of Workspaces, Ready or not, without discounts and taxes.",
                [("sum by (namespace, currency) (kaito_workspace_cost_per_hour)", "{{namespace}} {{currency}}")],
                stacked=True,
            ),
            Panel(
                "Idle cost per hour",
                "Cost of nodes that do nothing useful: the model does not answer, tuning is finished, or the Workspace "
                "does not exist.",
                [
                    ("sum by (reason, currency) (kaito_workspace_idle_cost_per_hour)", "{{reason}} {{currency}}"),
                    ("sum by (currency) (kaito_orphan_cost_per_hour)", "orphaned claims {{currency}}"),
                ],
                stacked=True,
            ),
            Panel(
                "Cost of each Workspace since its creation",
                "Cost of the nodes that each Workspace has and had.",
                [("max by (namespace, name, currency) (kaito_workspace_cost)", "")],
                kind="table",
                width=24,
                value="cost",
            ),
        ),
    ),
    Row(
        "Nodes",
        (
            Panel(
                "Claims by phase",
                "Machines and NodeClaims in each phase.",
                [("sum by (phase) (gpu_provisioner_nodeclaim_phase)", "{{phase}}")],
                stacked=True,
            ),
            Panel(
                "Time to each stage, 90 %",
                "From the creation of a claim until it is launched, registered and initialized.",
                [(quantile(0.9, "gpu_provisioner_time_to_stage_seconds", "stage"), "{{stage}}")],
                unit="s",
            ),
            Panel(
                "Failed launches",
                "Launch attempts that failed, by instance type and reason.",
                [(rate("gpu_provisioner_launch_failures_total", "sku", "reason"), "{{sku}} {{reason}}")],
                unit="ops",
            ),
            Panel(
                "Cloud errors",
                "Failed calls of the cloud provider, and deletions that the cloud rejected.",
                [
                    (rate("karpenter_cloudprovider_errors_total", "method", "error"), "{{method}} {{error}}"),
                    (rate("gpu_provisioner_refused_deletions_total", "reason"), "deletion rejected: {{reason}}"),
                ],
                unit="ops",
            ),
            Panel(
                "Requests to Azure Resource Manager",
                "Requests by operation and result, and those that were throttled.",
                [
                    (rate("gpu_provisioner_arm_requests_total", "op", "code"), "{{op}} {{code}}"),
                    (rate("gpu_provisioner_arm_throttled_total", "by"), "throttled by {{by}}"),
                ],
                unit="reqps",
            ),
            Panel(
                "Remaining quota, orphaned pools",
                "vCPUs that can still be used, by family; agent pools without a claim.",
                [
                    ("min by (family) (gpu_provisioner_quota_remaining)", "{{family}}"),
                    ("max(gpu_provisioner_orphan_pools)", "orphaned pools"),
                ],
            ),
        ),
    ),
    Row(
        "Controllers",
        (
            Panel(
                "Leaders",
                "1 for the replica that leads.",
                [("max by (name, pod) (leader_election_master_status)", "{{name}} {{pod}}")],
            ),
            Panel(
                "Reconciles",
                "Reconciles by controller and result.",
                [(rate("controller_runtime_reconcile_total", "controller", "result"), "{{controller}} {{result}}")],
                unit="ops",
            ),
            Panel(
                "Failed reconciles",
                "Errors and programming errors.",
                [
                    (rate("controller_runtime_reconcile_errors_total", "controller"), "{{controller}}"),
                    (rate("controller_runtime_reconcile_panics_total", "controller"), "{{controller}} panic"),
                ],
                unit="ops",
            ),
            Panel(
                "Oldest key in the queue of the leader",
                "Time for which the oldest ready key has waited.",
                [(f"max by (pod, controller) (kaito_runtime_queue_oldest_ready_seconds) {LEADER}", "{{controller}}")],
                unit="s",
            ),
            Panel(
                "Event to reconcile, 99 %",
                "From the receipt of an event to the start of its reconcile.",
                [(quantile(0.99, "kaito_runtime_event_to_reconcile_seconds", "controller"), "{{controller}}")],
                unit="s",
            ),
            Panel(
                "Duration of reconciles, 99 %",
                "",
                [(quantile(0.99, "controller_runtime_reconcile_time_seconds", "controller"), "{{controller}}")],
                unit="s",
            ),
            Panel(
                "Webhook latency",
                "Duration of admission calls.",
                [
                    (quantile(0.5, "controller_runtime_webhook_latency_seconds"), "50 %"),
                    (quantile(0.99, "controller_runtime_webhook_latency_seconds"), "99 %"),
                ],
                unit="s",
            ),
            Panel(
                "Webhook calls",
                "Admission calls by status code.",
                [(rate("controller_runtime_webhook_requests_total", "code"), "{{code}}")],
                unit="reqps",
            ),
            Panel(
                "Requests to the API server",
                "Requests of the controllers by method and status code.",
                [(rate("rest_client_requests_total", "method", "code"), "{{method}} {{code}}")],
                unit="reqps",
            ),
            Panel(
                "Memory",
                "Resident memory of each replica.",
                [('process_resident_memory_bytes{pod=~"(workspace-controller|gpu-provisioner)-.*"}', "{{pod}}")],
                unit="bytes",
                width=12,
            ),
            Panel(
                "Delay of the event loop",
                "Worst delay in the last 30 to 60 seconds.",
                [("max by (pod) (kaito_runtime_loop_lag_seconds)", "{{pod}}")],
                unit="s",
                width=12,
            ),
        ),
    ),
    Row(
        "Model servers",
        (
            Panel(
                "Generated tokens",
                "Tokens per second of the transformers server and of vLLM.",
                [
                    (rate("kaito_generation_tokens_total", *BY_MODEL, selector=MODELS), MODEL),
                    (rate("vllm:generation_tokens_total", *BY_MODEL, selector=MODELS), MODEL),
                ],
                unit="tokens/s",
            ),
            Panel(
                "Time to the first token, 95 %",
                "From the request to its first token, queueing included.",
                [
                    (quantile(0.95, "kaito_time_to_first_token_seconds", *BY_MODEL, selector=MODELS), MODEL),
                    (quantile(0.95, "vllm:time_to_first_token_seconds", *BY_MODEL, selector=MODELS), MODEL),
                ],
                unit="s",
            ),
            Panel(
                "Requests",
                "Answered requests by status code.",
                [(rate("kaito_http_requests_total", *BY_MODEL, "code", selector=MODELS), MODEL + " {{code}}")],
                unit="reqps",
            ),
            Panel(
                "Waiting requests",
                "Requests in the queue of the server.",
                [
                    (f"{OF_MODEL} (kaito_generation_queue_length{MODELS})", MODEL),
                    (f"{OF_MODEL} (vllm:num_requests_waiting{MODELS})", MODEL),
                ],
            ),
            Panel(
                "Running requests",
                "Requests that the server is answering.",
                [(f"{OF_MODEL} (kaito_generation_in_flight{MODELS})", MODEL)],
            ),
            Panel(
                "GPU memory",
                "Share of the memory in use, mean of all GPUs (transformers server).",
                [
                    (f"avg by (namespace, kaito_sh_workspace) ({GPU_MEMORY})", MODEL),
                ],
                unit="percentunit",
            ),
        ),
    ),
)


def expressions() -> Iterator[str]:
    """Returns the expressions of all panels, with a fixed interval and without variables."""
    for row in ROWS:
        for panel in row.panels:
            for expression, _ in panel.queries:
                yield expression.replace(RATE, "5m").replace("$namespace", ".*").replace("$workspace", ".*")


def page() -> str:
    """Returns the dashboard as JSON."""
    return json.dumps(_dashboard(), indent=2) + "\n"


def _dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        position = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": position}
        )
        top, left = top + 1, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left = top + HEIGHT, 0
            panels.append(_panel(panel, len(panels) + 1, x=left, y=top))
            left += panel.width
        top += HEIGHT
    return {
        "title": TITLE,
        "uid": UID,
        "tags": ["kaito"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_datasource(), _variable("namespace"), _variable("workspace", "kaito_sh_workspace")]},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, *, x: int, y: int) -> dict[str, Any]:
    is_table = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "expr": expression,
            "legendFormat": legend,
            **({"instant": True, "format": "table"} if is_table else {}),
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.stacked else {"fillOpacity": 0}
    columns = {
        "excludeByName": {"Time": True} | ({} if panel.value else {"Value": True}),
        "renameByName": {"Value": panel.value} if panel.value else {},
    }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, **({} if is_table else {"min": 0, "custom": custom})},
            "overrides": [],
        },
        "targets": targets,
        **({"transformations": [{"id": "organize", "options": columns}]} if is_table else {}),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(name: str, label: str = "") -> dict[str, Any]:
    query = f"label_values(kaito_http_requests_total, {label or name})"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
    }
