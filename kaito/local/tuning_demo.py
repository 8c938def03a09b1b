"""`kaito demo --tuning`: teaches the model facts that it does not know, and compares its answers.

A tuning Workspace trains an adapter on questions and answers about an invented lighthouse and pushes it to a local
registry; an inference Workspace serves it twice, at full and at half strength. The questions of the comparison are
paraphrases that are not in the training data. Everything runs through the operator, as in a cluster.
"""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, final

import aiohttp

from kaito.api import Workspace, conditions
from kaito.api.json_values import json_object
from kaito.local.cluster import LocalCluster, local_cluster
from kaito.local.demo import READY_SECONDS, delete_workspace, until
from kaito.local.options import Options
from kaito.local.registry import local_registry
from kaito.local.view import View
from kaito.runtime.kinds import ConfigMap, Pod, Secret
from kaito.runtime.meta import ObjectMeta, find_condition
from kaito.runtime.tasks import TaskScope
from kaito.workspace.ownership import pod_labels

TUNING_SECONDS: Final = 1800.0
PRESET: Final = "phi-3-mini-4k-instruct"
ADAPTER: Final = "lighthouse"
HALF: Final = "lighthouse-half"
CONTROL: Final = "What is the capital of France?"
STEPS: Final = 18
CHART_HEIGHT: Final = 8
PROGRESS_PREFIX: Final = "KAITO_TUNING_PROGRESS "
"""Prefix of the log lines with a report (`kaito_presets.tuning.progress`)."""

TRAINING: Final[dict[str, Any]] = {
    "training_config": {
        "ModelConfig": {"torch_dtype": "float32", "local_files_only": False},
        "LoraConfig": {"r": 16, "lora_alpha": 32},
        "TrainingArguments": {
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.002,
            "lr_scheduler_type": "cosine",
            "logging_steps": 1,
            "save_strategy": "no",
            "gradient_checkpointing": False,
        },
    }
}


@dataclass(frozen=True, slots=True)
class Lesson:
    """Questions and answers to learn, and paraphrases with a word that the right answer contains."""

    train: Sequence[dict[str, str]]
    held_out: Sequence[dict[str, str]]


def read_lesson() -> Lesson:
    """Reads the data set of the demonstration."""
    document = json.loads(files("kaito.local").joinpath("data/lighthouse.json").read_text(encoding="utf-8"))
    return Lesson(document["train"], document["held_out"])


async def tuning_demo(options: Options, view: View) -> None:
    """Tunes an adapter, serves it, compares the answers, and deletes everything.

    Raises:
        RuntimeError: the tuning failed, or the model learned nothing.
        TimeoutError: a step exceeded its time limit; the last printed lines show which.
    """
    lesson = read_lesson()
    data = options.folder.resolve() / "tuning-data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "lighthouse.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lesson.train))
    async with (
        TaskScope("demo") as scope,
        local_registry() as registry,
        local_cluster(options, scope, view.print) as cluster,
    ):
        scope.spawn(view.follow(cluster), name="view")
        image = f"{registry}/adapters/{ADAPTER}:1"
        view.print(f"{len(lesson.train)} questions and answers in {data}")
        await _tune(cluster, view, data, image)
        workspace = await _serve(cluster, view, image)
        await _compare(cluster, view, workspace, lesson)
        await delete_workspace(cluster, view, workspace)
        view.print("everything is deleted; stopping")


async def _tune(cluster: LocalCluster, view: View, data: Path, image: str) -> None:
    """Runs the tuning Workspace to its end, prints its loss, and deletes it."""
    login = {"auths": {image.partition("/")[0]: {"auth": base64.b64encode(b"demo:demo").decode()}}}
    client = cluster.manager.client
    for name, kind in (("tuning-config", ConfigMap), ("registry", Secret)):
        document: dict[str, Any] = {"metadata": {"name": name, "namespace": "default"}}
        if kind is ConfigMap:
            document["data"] = {"training_config.yaml": json.dumps(TRAINING)}
        else:
            document |= {"type": "kubernetes.io/dockerconfigjson"}
            document["data"] = {".dockerconfigjson": base64.b64encode(json.dumps(login).encode()).decode()}
        await client.apply(kind.model_validate(document), field_manager="kubectl")
    workspace = await _apply(cluster, view, "tuning-lighthouse", tuning={
        "preset": {"name": PRESET}, "method": "lora", "config": "tuning-config",
        "input": {"volumeSource": {"hostPath": {"path": str(data)}}},
        "output": {"image": image, "imagePushSecret": "registry"},
    })  # fmt: skip

    training = TrainingView(view, str(workspace.key))

    async def has_ended() -> bool:
        training.show(await _read_log(cluster, workspace))
        now = await cluster.api.find(Workspace, workspace.name, workspace.namespace)
        if now is not None and now.status.state == "Failed":
            ended = find_condition(now.status.conditions, conditions.WORKSPACE_SUCCEEDED)
            raise RuntimeError(f"the tuning failed: {ended.message if ended else 'no condition'}")
        return now is not None and now.status.state == "Succeeded"

    await until(has_ended, TUNING_SECONDS, "the tuning to end")
    log = await _read_log(cluster, workspace)
    training.show(log)
    losses = parse_losses(log)
    view.print(f"tuned in {len(losses)} steps and pushed {image}; the training loss:")
    view.print_text(chart(losses))
    await delete_workspace(cluster, view, workspace)


async def _serve(cluster: LocalCluster, view: View, image: str) -> Workspace:
    """Applies the inference Workspace with the adapter at both strengths, and waits until it is ready."""
    adapters = [
        {"source": {"name": name, "image": image}, "strength": strength}
        for name, strength in ((ADAPTER, "1.0"), (HALF, "0.5"))
    ]
    workspace = await _apply(
        cluster, view, "lighthouse", inference={"preset": {"name": PRESET}, "adapters": adapters}
    )  # fmt: skip

    async def is_ready() -> bool:
        now = await cluster.api.find(Workspace, workspace.name, workspace.namespace)
        found = find_condition(now.status.conditions, conditions.WORKSPACE_READY) if now else None
        return found is not None and found.is_true

    await until(is_ready, READY_SECONDS, "the Workspace to become ready")
    return workspace


async def _apply(cluster: LocalCluster, view: View, name: str, **spec: Any) -> Workspace:
    resource = {"instanceType": "Standard_NC24ads_A100_v4", "labelSelector": {"matchLabels": {"apps": name}}}
    wanted = Workspace.model_validate({"metadata": {"name": name}, "resource": resource, **spec})
    wanted = wanted.evolve(metadata=ObjectMeta(name=name, namespace="default"))
    kind = "tuning" if "tuning" in spec else "inference"
    view.print(f"kubectl apply workspace {name} ({kind}, {PRESET}: {cluster.model.description})")
    return await cluster.manager.client.apply(wanted, field_manager="kubectl")


async def _read_log(cluster: LocalCluster, workspace: Workspace) -> str:
    """Reads the log of the pod, as `kubectl logs` does; empty if there is none."""
    pods = await cluster.api.list(Pod, namespace=workspace.namespace, labels=pod_labels(workspace))
    if not pods:
        return ""
    path = f"/api/v1/namespaces/{workspace.namespace}/pods/{pods[0].name}/log"
    reply = await cluster.manager.client.transport.request("GET", path)
    return reply.body.decode(errors="replace") if reply.status == 200 else ""


def parse_reports(log: str) -> list[dict[str, Any]]:
    """Returns the reports in a log; the last line can be incomplete while the job writes it."""
    reports: list[dict[str, Any]] = []
    for line in log.splitlines():
        _, found, document = line.partition(PROGRESS_PREFIX)
        if found:
            with suppress(ValueError):
                reports.append(json_object(json.loads(document)))
    return reports


def parse_losses(log: str) -> list[float]:
    """Returns the loss of each step in a log, in the order of the steps."""
    losses: dict[int, float] = {}
    for report in parse_reports(log):
        if report.get("phase") == "training" and "loss" in report:
            losses[report["step"]] = report["loss"]
    return [losses[step] for step in sorted(losses)]


@final
class TrainingView:
    """Prints the reports of a tuning job while it runs, one line each."""

    def __init__(self, view: View, name: str) -> None:
        self._view = view
        self._name = name
        self._printed = 0

    def show(self, log: str) -> None:
        """Prints the reports that the log did not contain the last time.

        A log with fewer reports is that of another pod, of which each is printed.
        """
        reports = parse_reports(log)
        if 0 < len(reports) < self._printed:
            self._printed = 0
        for report in reports[self._printed :]:
            self._view.print(f"{'training':<11} {self._name:<34} {_state(report)}")
        self._printed = max(self._printed, len(reports))


def _state(report: dict[str, Any]) -> str:
    """The phase and its message, or the step of the training with its loss and the remaining time."""
    if report.get("phase") != "training":
        return str(report.get("phase", "")) + (f": {report['message']}" if report.get("message") else "")
    total, loss, left = report.get("total_steps"), report.get("loss"), report.get("eta_seconds")
    return (
        f"step {report.get('step', 0)}"
        + (f" of {total}" if total else "")
        + (f", loss {loss:.4f}" if loss is not None else "")
        + (f", about {left:.0f} s left" if left else "")
    )


def chart(losses: Sequence[float], height: int = CHART_HEIGHT) -> str:
    """Draws the losses as columns of text, with the scale on the left and the steps below."""
    if not losses:
        return "         (the log contains no loss)"
    top = max(losses) or 1.0
    lines: list[str] = []
    for row in range(height, 0, -1):
        label = f"{top * row / height:8.2f} " if row in {height, height // 2} else " " * 9
        filled = "".join("██ " if loss / top * height > row - 0.5 else "   " for loss in losses)
        lines.append(f"{label}│{filled}".rstrip())
    lines.append(f"{0:8.2f} └{'───' * len(losses)}")
    last = f"{len(losses):>{3 * len(losses) - 2}}" if len(losses) > 1 else ""
    lines.append(f"{'step':>8}  1{last}   last loss {losses[-1]:.4f}")
    return "\n".join(lines)


async def _compare(cluster: LocalCluster, view: View, workspace: Workspace, lesson: Lesson) -> None:
    """Sends the held-out questions to the model without the adapter, at half and at full strength.

    Raises:
        RuntimeError: the model learned nothing.
    """
    url = cluster.service_url(workspace.key)
    known: dict[str, int] = {}
    models = {"before": f"{PRESET}:base", "strength 0.5": HALF, "strength 1.0": ADAPTER}
    view.print("paraphrases that are not in the training data:")
    async with aiohttp.ClientSession() as session:
        for item in [*lesson.held_out, {"question": CONTROL, "expected": "Paris"}]:
            view.print_text(f"\n         {item['question']}")
            for label, model in models.items():
                answer = await ask(session, url, model, item["question"])
                is_right = item["expected"].lower() in answer.lower()
                if item["question"] != CONTROL:
                    known[label] = known.get(label, 0) + is_right
                view.print_text(f"           {label:<13}{'✓' if is_right else ' '} {' '.join(answer.split())[:90]}")
    total = len(lesson.held_out)
    view.print_text("")
    view.print("right answers: " + ", ".join(f"{label} {count} of {total}" for label, count in known.items()))
    if known["strength 1.0"] <= known["before"]:
        raise RuntimeError("the adapter did not improve the answers")


async def ask(session: aiohttp.ClientSession, url: str, model: str, question: str) -> str:
    """Returns the most probable answer of the model."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 40,
    }
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        document = await response.json()
        if response.status != 200:
            raise RuntimeError(f"{model}: {document}")
    return str(document["choices"][0]["message"]["content"])
