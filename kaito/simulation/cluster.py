"""Stand-ins for Kubernetes' controllers and kubelets: StatefulSets, Jobs, scheduler, pods on nodes, and node eviction.

`ClusterControllers` reacts to writes after a short delay and works on the server's JSON objects without caches, because
a campaign of simulations spends its time here. Pods run only on nodes that exist, are ready, and have free GPUs.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Mapping
from typing import Any, Final, final

import msgspec

from kaito.apiserver import ApiServer, HttpRequest
from kaito.runtime.testing.objects import OWN_AGENT
from kaito.runtime.testing.simulate import Run
from kaito.simulation.manifests import Object, entries, has_condition, is_terminating, labels_of, section

DELAY_SECONDS: Final = 0.5
"""Time from a write to the reaction of the stand-ins."""

START_SECONDS: Final = (20.0, 120.0)
"""Range of the time from the binding of a pod until it is ready: pulling the image and loading the model."""

JOB_SECONDS: Final = 400.0
"""Time from the start of a Job's pod to its end."""

EVICT_AFTER_SECONDS: Final = 300.0
"""Time for which pods stay on a node that is not ready (the default toleration of Kubernetes)."""

REVISION: Final = "controller-revision-hash"
ROLE: Final = "kaito.sh/group-role"
GPU: Final = "nvidia.com/gpu"
WATCHED: Final = frozenset({"statefulsets.apps", "jobs.batch", "pods", "nodes"})


@final
class ServerAccess:
    """Requests to the API server that are served at once; faults do not affect them."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/merge-patch+json",
    ) -> int:
        """Sends a request and returns its status, which callers ignore: the object may not exist any more."""
        headers = {"user-agent": OWN_AGENT, "content-type": content_type if method == "PATCH" else "application/json"}
        data = b"" if body is None else msgspec.json.encode(body)
        work = self._server.handle(HttpRequest(method, path, (), headers, data))
        try:
            work.send(None)
        except StopIteration as end:
            return int(end.value.status)
        work.close()
        message = f"{method} {path} waits, for a webhook for example"
        raise RuntimeError(message)


@final
class ClusterControllers:
    """The stand-ins of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._api = ServerAccess(run.world.server)
        self._rng = random.Random(f"cluster-{run.scenario.seed}")  # noqa: S311 - repeatable
        self._wake = asyncio.Event()
        self._due: float | None = None
        self._ready_at: dict[str, float] = {}
        self._ends_at: dict[str, float] = {}
        self._not_ready_since: dict[str, float] = {}
        self.broken: dict[str, float] = {}
        """Until when the pods of a Workspace (`namespace/name`) crash."""
        run.world.server.on_write(self._on_write)

    def _on_write(self, resource: str, *_: object) -> None:
        if resource in WATCHED:
            self._wake.set()

    async def work(self) -> None:
        """Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            wait = None if self._due is None else max(self._due - loop.time(), 0.001)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(DELAY_SECONDS)
            self._wake.clear()
            self._due = None
            self.reconcile()

    def reconcile(self) -> None:
        """Brings pods, workloads and their status up to date once."""
        self._collect_pods()
        for key, stateful_set in sorted(self._run.stored("statefulsets.apps").items()):
            if not is_terminating(stateful_set):
                self._stateful_set(key, stateful_set)
        for key, job in sorted(self._run.stored("jobs.batch").items()):
            if not is_terminating(job):
                self._job(key, job)
        self._schedule()
        self._kubelets()

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self._run.now

    def _wait_until(self, moment: float) -> None:
        self._due = moment if self._due is None else min(self._due, moment)

    # -- workloads ---------------------------------------------------------------------------------------------------

    def _pods_of(self, owner: Object) -> dict[str, Object]:
        uid = owner["metadata"]["uid"]
        return {
            name: pod
            for (_, name), pod in sorted(self._run.stored("pods").items())
            if any(reference["uid"] == uid for reference in entries(pod, "metadata", "ownerReferences"))
        }

    def _stateful_set(self, key: tuple[str, str], workload: Object) -> None:
        namespace, name = key
        spec = workload["spec"]
        replicas = spec.get("replicas", 1)
        revision = revision_of(name, spec["template"])
        pods = self._pods_of(workload)
        wanted = [f"{name}-{ordinal}" for ordinal in range(replicas)]
        for pod_name, pod in pods.items():
            if pod_name not in wanted or phase_of(pod) in {"Failed", "Succeeded"}:
                self._delete_pod(namespace, pod)
        outdated = [pod for pod in pods.values() if labels_of(pod).get(REVISION) != revision]
        current_ready = all(is_ready(pod) for pod in pods.values() if pod not in outdated)
        if outdated and current_ready and all(pod_name in pods for pod_name in wanted):
            self._delete_pod(namespace, outdated[-1])
        for pod_name in wanted:
            if pod_name not in pods:
                self._create_pod(workload, pod_name, spec["template"], {REVISION: revision})
        pods = self._pods_of(workload)
        ready = sum(is_ready(pod) for pod in pods.values())
        updated = sum(labels_of(pod).get(REVISION) == revision for pod in pods.values())
        self._report(
            f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}",
            workload,
            {
                "observedGeneration": workload["metadata"]["generation"],
                "replicas": len(pods),
                "readyReplicas": ready,
                "availableReplicas": ready,
                "currentReplicas": updated,
                "updatedReplicas": updated,
                "currentRevision": revision,
                "updateRevision": revision,
            },
        )

    def _job(self, key: tuple[str, str], job: Object) -> None:
        namespace, name = key
        if any(each["status"] == "True" for each in entries(job, "status", "conditions")):
            return
        pods = self._pods_of(job)
        phases = [phase_of(pod) for pod in pods.values()]
        failed, succeeded = phases.count("Failed"), phases.count("Succeeded")
        active = len(phases) - failed - succeeded
        limit = job["spec"].get("backoffLimit", 6)
        if not active and not succeeded and failed <= limit and not job["spec"].get("suspend"):
            self._create_pod(job, f"{name}-{failed}", job["spec"]["template"], {"job-name": name})
            active = 1
        report: Object = {"active": active, "failed": failed, "succeeded": succeeded}
        report["ready"] = sum(is_ready(pod) for pod in pods.values())
        report["startTime"] = section(job, "status").get("startTime") or self._timestamp()
        if succeeded:
            report["completionTime"] = self._timestamp()
            report["conditions"] = [self._condition("SuccessCriteriaMet"), self._condition("Complete")]
        elif failed > limit:
            report["conditions"] = [self._condition("FailureTarget"), self._condition("Failed")]
        self._report(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", job, report)

    def _condition(self, kind: str) -> Object:
        return {"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": self._timestamp()}

    def _timestamp(self) -> str:
        return self._run.world.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _report(self, path: str, workload: Object, status: Object) -> None:
        present = section(workload, "status")
        changed = {name: value for name, value in status.items() if present.get(name, 0) != value}
        if changed:
            self._api.send("PATCH", f"{path}/status", {"status": changed})

    def _create_pod(self, owner: Object, name: str, template: Object, labels: Mapping[str, str]) -> None:
        metadata = owner["metadata"]
        reference = {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        given = section(template, "metadata")
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": {**section(given, "labels"), **labels},
                "annotations": dict(section(given, "annotations")),
                "ownerReferences": [reference],
            },
            "spec": template["spec"],
        }
        claims = entries(owner, "spec", "volumeClaimTemplates")
        if claims:
            names = {claim["metadata"]["name"] for claim in claims}
            others = [volume for volume in entries(pod, "spec", "volumes") if volume["name"] not in names]
            volumes = [
                {"name": each, "persistentVolumeClaim": {"claimName": f"{each}-{name}"}} for each in sorted(names)
            ]
            pod["spec"] = {**pod["spec"], "volumes": others + volumes}
        self._api.send("POST", f"/api/v1/namespaces/{metadata['namespace']}/pods", pod)

    def _delete_pod(self, namespace: str, pod: Object, *, grace: int | None = None) -> None:
        if is_terminating(pod) and grace is None:
            return
        body = {} if grace is None else {"gracePeriodSeconds": grace}
        self._api.send("DELETE", f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}", body)

    # -- scheduler and kubelets --------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        pods = self._run.stored("pods")
        nodes = self._run.stored("nodes")
        used: dict[str, int] = {}
        for pod in pods.values():
            node = pod["spec"].get("nodeName")
            if node and phase_of(pod) not in {"Failed", "Succeeded"}:
                used[node] = used.get(node, 0) + gpus_of(pod)
        for (namespace, name), pod in sorted(pods.items()):
            if pod["spec"].get("nodeName") or is_terminating(pod):
                continue
            for (_, node_name), node in sorted(nodes.items()):
                allocatable = int(section(node, "status", "allocatable").get(GPU, "0"))
                if fits(pod, node) and allocatable - used.get(node_name, 0) >= gpus_of(pod):
                    used[node_name] = used.get(node_name, 0) + gpus_of(pod)
                    binding = {
                        "apiVersion": "v1",
                        "kind": "Binding",
                        "metadata": {"name": name, "namespace": namespace},
                        "target": {"apiVersion": "v1", "kind": "Node", "name": node_name},
                    }
                    self._api.send("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/binding", binding)
                    self._ready_at[pod["metadata"]["uid"]] = self.now + self._rng.uniform(*START_SECONDS)
                    break

    def _collect_pods(self) -> None:
        """Deletes the pods of nodes that do not exist, of terminating pods, and of nodes that are lost for long."""
        nodes = self._run.stored("nodes")
        for (_, name), node in nodes.items():
            if has_condition(node, "Ready"):
                self._not_ready_since.pop(name, None)
            else:
                self._wait_until(self._not_ready_since.setdefault(name, self.now) + EVICT_AFTER_SECONDS)
        for (namespace, _), pod in sorted(self._run.stored("pods").items()):
            node_name = pod["spec"].get("nodeName")
            if not node_name:
                continue
            if ("", node_name) not in nodes:
                self._delete_pod(namespace, pod, grace=0)
            elif is_terminating(pod):
                if node_name not in self._not_ready_since:
                    self._delete_pod(namespace, pod, grace=0)
            elif self.now - self._not_ready_since.get(node_name, self.now) >= EVICT_AFTER_SECONDS:
                self._delete_pod(namespace, pod)

    def _kubelets(self) -> None:
        for (namespace, name), pod in sorted(self._run.stored("pods").items()):
            node_name = pod["spec"].get("nodeName")
            if not node_name or is_terminating(pod):
                continue
            if phase_of(pod) in {"Failed", "Succeeded"}:
                continue
            uid, path = pod["metadata"]["uid"], f"/api/v1/namespaces/{namespace}/pods/{name}/status"
            started = self._ready_at.setdefault(uid, self.now + START_SECONDS[0])
            broken_until = self._broken_until(pod)
            if node_name in self._not_ready_since:
                if is_ready(pod):
                    self._api.send("PATCH", path, {"status": {"conditions": [self._pod_condition("False")]}})
            elif self.now < broken_until:
                self._ready_at[uid] = broken_until + START_SECONDS[0]
                self._wait_until(broken_until)
                if not has_crashed(pod):
                    self._api.send("PATCH", path, {"status": self._crashing(pod)})
            elif self.now < started:
                self._wait_until(started)
            else:
                self._run_pod(pod, path)

    def _run_pod(self, pod: Object, path: str) -> None:
        """Updates the readiness of a pod that has started, and ends that of a Job."""
        uid = pod["metadata"]["uid"]
        if not self._has_workers(pod):
            if is_ready(pod):
                self._api.send("PATCH", path, {"status": {"conditions": [self._pod_condition("False")]}})
        elif not is_ready(pod):
            self._api.send("PATCH", path, {"status": self._running(pod)})
            self._ends_at[uid] = self.now + JOB_SECONDS
        elif is_of_job(pod):
            self._finish(path, uid)

    def _has_workers(self, pod: Object) -> bool:
        """Whether the workers of a leader's copy are ready; True for a pod that leads no group."""
        if labels_of(pod).get(ROLE) != "leader":
            return True
        namespace = pod["metadata"]["namespace"]
        name, _, ordinal = pod["metadata"]["name"].rpartition("-")
        sets = self._run.stored("statefulsets.apps")
        leaders, workers = sets.get((namespace, name)), sets.get((namespace, f"{name}-workers"))
        if leaders is None or workers is None or not leaders["spec"].get("replicas"):
            return False
        each = workers["spec"].get("replicas", 1) // leaders["spec"]["replicas"]
        pods = self._run.stored("pods")
        names = [f"{name}-workers-{int(ordinal) * each + number}" for number in range(each)]
        return all((found := pods.get((namespace, worker))) is not None and is_ready(found) for worker in names)

    def _finish(self, path: str, uid: str) -> None:
        ends = self._ends_at.setdefault(uid, self.now + JOB_SECONDS)
        if self.now < ends:
            self._wait_until(ends)
            return
        self._api.send("PATCH", path, {"status": {"phase": "Succeeded", "conditions": [self._pod_condition("False")]}})

    def _broken_until(self, pod: Object) -> float:
        name = labels_of(pod).get("kaito.sh/workspace", "")
        return self.broken.get(f"{pod['metadata']['namespace']}/{name}", 0.0)

    def _pod_condition(self, status: str) -> Object:
        return {"type": "Ready", "status": status, "lastTransitionTime": self._timestamp()}

    def _running(self, pod: Object) -> Object:
        return {
            "phase": "Running",
            "conditions": [self._pod_condition("True")],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container.get("image", ""),
                    "imageID": "",
                    "ready": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": self._timestamp()}},
                }
                for container in pod["spec"]["containers"]
            ],
        }

    def _crashing(self, pod: Object) -> Object:
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}
        ended = {"exitCode": 1, "reason": "Error", "message": "CUDA error: an illegal memory access"}
        return {
            "phase": "Running",
            "conditions": [self._pod_condition("False")],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container.get("image", ""),
                    "imageID": "",
                    "ready": False,
                    "restartCount": 3,
                    "state": {"waiting": waiting},
                    "lastState": {"terminated": ended},
                }
                for container in pod["spec"]["containers"]
            ],
        }


def revision_of(name: str, template: Mapping[str, Any]) -> str:
    """Returns the revision of a pod template."""
    return f"{name}-{hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]}"


def phase_of(pod: Mapping[str, Any]) -> str:
    """Returns the phase of a pod."""
    return str(section(pod, "status").get("phase", ""))


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready and not terminating."""
    return has_condition(pod, "Ready") and not is_terminating(pod)


def has_crashed(pod: Mapping[str, Any]) -> bool:
    """Whether a container of the pod is in CrashLoopBackOff."""
    return any("waiting" in section(each, "state") for each in entries(pod, "status", "containerStatuses"))


def is_of_job(pod: Mapping[str, Any]) -> bool:
    """Whether a Job owns the pod."""
    return any(owner["kind"] == "Job" for owner in entries(pod, "metadata", "ownerReferences"))


def gpus_of(pod: Mapping[str, Any]) -> int:
    """Returns the GPUs that the pod's containers request."""
    total = 0
    for container in entries(pod, "spec", "containers"):
        wanted = {**section(container, "resources", "requests"), **section(container, "resources", "limits")}
        total += int(wanted.get(GPU, 0))
    return total


def fits(pod: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether the scheduler may bind the pod to the node, apart from resources."""
    if not has_condition(node, "Ready") or section(node, "spec").get("unschedulable") or is_terminating(node):
        return False
    tolerations = entries(pod, "spec", "tolerations")
    for taint in entries(node, "spec", "taints"):
        if taint.get("effect") != "PreferNoSchedule" and not any(_tolerates(each, taint) for each in tolerations):
            return False
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in section(pod, "spec", "nodeSelector").items()):
        return False
    required = section(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    terms = entries(required, "nodeSelectorTerms")
    return not terms or any(all(_holds(each, labels) for each in entries(term, "matchExpressions")) for term in terms)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("key") not in {None, "", taint["key"]}:
        return False
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    return toleration.get("operator") == "Exists" or (toleration.get("value") or "") == (taint.get("value") or "")


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    values: list[str] = expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None
