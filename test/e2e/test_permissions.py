"""Both programs under exactly the roles of `config/rbac`: nothing they request is denied, and every right is used.

Each program runs with a token of its ServiceAccount on a kube-apiserver with RBAC and an audit log. The log contains
every request with its verb, so rights that nothing uses are found, too.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from hack.envtest import ControlPlane
from hack.envtest.control_plane import free_port
from test.support.stack import ROOT, Stack, until

NAMESPACE = "kaito-system"
PROGRAMS = ("workspace-controller", "gpu-provisioner")
AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    users:
      - system:serviceaccount:kaito-system:workspace-controller
      - system:serviceaccount:kaito-system:gpu-provisioner
  - level: None
"""
WORKSPACE = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: phi}
resource:
  instanceType: Standard_NC24ads_A100_v4
  labelSelector: {matchLabels: {apps: phi}}
inference:
  preset:
    name: phi-3-mini-4k-instruct
    podOptions: {priorityClassName: urgent, runtimeClassName: nvidia}
  config: settings
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1000
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: nvidia}
handler: nvidia
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {inference_config.yaml: "vllm: {}"}
"""
INFERENCE_SET = """
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata: {name: phi}
spec:
  replicas: 1
  labelSelector: {matchLabels: {apps: phi}}
  template:
    resource: {instanceType: Standard_NC24ads_A100_v4}
    inference: {preset: {name: phi-3-mini-4k-instruct}}
"""
BAD_WORKSPACE = WORKSPACE.partition("---")[0].replace("phi-3-mini-4k-instruct", "no-such-preset")

Right = tuple[str, str, str]
"""API group, resource with subresource, verb."""

APPLIED = "server-side apply sends patch, and needs create where the object does not exist"
RELIST = "an informer lists where the server cannot stream the first state, and gets what a test of one object reads"
OTHER_KIND = "only one kind of claims is in use here"
NOT_PROVOKED = "test/unit/workspace/test_rbac.py and the tests of the drain provoke it"
SEVERAL_NODES = "copies on several nodes only"
TO_ZERO = "Workspaces that scale to zero only; test/unit/workspace/test_rbac.py provokes it"
GATEWAY = "with --inference-gateway only; test/e2e/test_inference_gateway.py"
SCALED = "by the autoscaler only; test/e2e/test_autoscaling.py"
BLOCKING = "needed only with the admission plugin OwnerReferencesPermissionEnforcement"
UNUSED: Mapping[str, Mapping[str, str]] = {
    "workspace-controller": {
        "create services": APPLIED, "create configmaps": APPLIED, "create statefulsets": APPLIED,
        "create jobs": APPLIED, "create workspaces": APPLIED, "create validatingadmissionpolicies": APPLIED,
        "create validatingadmissionpolicybindings": APPLIED,
        "patch configmaps": "tuning only", "patch jobs": "tuning only", "delete jobs": "tuning only",
        "delete pods": NOT_PROVOKED, "list events": NOT_PROVOKED, "get secrets": NOT_PROVOKED,
        "get persistentvolumeclaims": NOT_PROVOKED, "get serviceaccounts": NOT_PROVOKED,
        "patch events": "only for an event that repeats", "update secrets": "rotation of the webhook certificate",
        "update workspaces/finalizers": BLOCKING, "update inferencesets/finalizers": BLOCKING,
        **{f"{verb} {resource}": GATEWAY for verb in ("create", "patch", "watch")
           for resource in ("httproutes", "inferencepools")},
        "patch inferencesets": SCALED,
        "create endpointslices": TO_ZERO, "patch endpointslices": TO_ZERO, "delete endpointslices": TO_ZERO,
        "create networkpolicies": SEVERAL_NODES, "patch networkpolicies": SEVERAL_NODES,
        "delete networkpolicies": SEVERAL_NODES,
        "create nodeclaims": OTHER_KIND, "delete nodeclaims": OTHER_KIND, "get nodeclaims": OTHER_KIND,
        "list nodeclaims": OTHER_KIND, "watch nodeclaims": OTHER_KIND,
    },
    "gpu-provisioner": {
        "create pods/eviction": NOT_PROVOKED, "delete pods": NOT_PROVOKED, "get pods": NOT_PROVOKED,
        "get persistentvolumeclaims": NOT_PROVOKED, "list volumeattachments": NOT_PROVOKED,
        "delete machines": NOT_PROVOKED, "patch events": "only for an event that repeats",
        "update machines/finalizers": BLOCKING, "update nodeclaims/finalizers": BLOCKING,
        "patch nodeclaims": OTHER_KIND, "patch nodeclaims/status": OTHER_KIND, "delete nodeclaims": OTHER_KIND,
        "watch nodeclaims": OTHER_KIND,
    },
}  # fmt: skip
"""Rights that this test does not use, each with the reason why they are granted."""


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def granted(program: str) -> Iterator[Right]:
    for manifest in documents(ROOT / "config" / "rbac" / f"{program}.yaml"):
        for rule in manifest.get("rules", ()):
            yield from ((g, r, v) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"])


def requests(log: Path, program: str) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines():
        event: dict[str, Any] = json.loads(line)
        if event["user"]["username"] == f"system:serviceaccount:{NAMESPACE}:{program}":
            yield event


def used(log: Path, program: str) -> set[Right]:
    found: set[Right] = set()
    for event in requests(log, program):
        ref = event.get("objectRef")
        if ref and "resource" in ref:
            resource = "/".join(filter(None, (ref["resource"], ref.get("subresource"))))
            found.add((ref.get("apiGroup", ""), resource, event["verb"]))
    return found


def run_as(running: Stack, program: str, *more: str) -> None:
    """Lets the program use a token of its ServiceAccount."""
    token = running.kubectl("create", "token", program, f"--namespace={NAMESPACE}").strip()
    config = yaml.safe_load(running.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    config["contexts"][0]["context"]["namespace"] = NAMESPACE
    path = running.folder / f"{program}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    kept = [
        argument
        for argument in running.programs[program].command
        if not argument.startswith(("--kubeconfig=", "--leader-elect=", "--webhook="))
    ]
    running.programs[program].command = [*kept, f"--kubeconfig={path}", "--node-api=machine", *more]


def ready(running: Stack, kind: str, name: str, condition: str) -> bool:
    path = f'{{.status.conditions[?(@.type=="{condition}")].status}}'
    return running.kubectl("get", kind, name, f"--output=jsonpath={path}", check=False) == "True"


@pytest.mark.timeout(300)
async def test_both_programs_work_with_exactly_their_roles(tmp_path: Path) -> None:
    policy, log, port = tmp_path / "policy.yaml", tmp_path / "audit.log", free_port()
    policy.write_text(AUDIT_POLICY)
    audit = (f"--audit-policy-file={policy}", f"--audit-log-path={log}")
    with ControlPlane(extra_arguments=audit) as control_plane:
        running = Stack(control_plane.kubeconfig, control_plane.folder, "machine", free_port())
        for folder in ("crd", "rbac"):
            if folder == "rbac":
                running.kubectl("create", "namespace", NAMESPACE)
            running.kubectl("apply", "--server-side", f"--kustomize={ROOT / 'config' / folder}")
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        for configuration in documents(ROOT / "config" / "webhook" / "workspace.yaml"):
            for webhook in configuration["webhooks"]:
                path = webhook["clientConfig"]["service"]["path"]
                webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}{path}"}
            running.kubectl("apply", "-f", "-", stdin=json.dumps(configuration))
        run_as(running, "workspace-controller", f"--webhook-port={port}", "--webhook-hosts=127.0.0.1")
        run_as(running, "gpu-provisioner")
        try:
            await running.start()

            def admitted() -> bool:
                answer = running.kubectl("apply", "-f", "-", stdin=BAD_WORKSPACE, check=False)
                assert "created" not in answer
                return "no-such-preset" in answer

            await until(admitted, "the webhook to refuse an unknown preset")
            running.kubectl("apply", "-f", "-", stdin=WORKSPACE)
            await until(lambda: ready(running, "workspace", "phi", "WorkspaceReady"), "the Workspace to be ready")
            running.kubectl("delete", "workspace", "phi", "--timeout=90s")
            assert await running.pools() == {}
            running.kubectl("apply", "-f", "-", stdin=INFERENCE_SET)
            await until(
                lambda: ready(running, "workspace", "phi-0", "WorkspaceReady"), "the set's Workspace to be ready"
            )
            running.kubectl("delete", "inferenceset", "phi", "--timeout=90s")
            await until(
                lambda: "kaito-in-use" not in running.kubectl("get", "validatingadmissionpolicies"), "the guard to go"
            )
        finally:
            running.stop()
        for program in PROGRAMS:
            denied = [
                (event["verb"], event["requestURI"])
                for event in requests(log, program)
                if event["responseStatus"].get("code") in {401, 403}
            ]
            assert denied == [], program
            seen = used(log, program)
            assert len(seen) > 10, "the audit log contains the requests"
            unused = {f"{v} {r}" for g, r, v in granted(program) if (g, r, v) not in seen and v not in {"get", "list"}}
            unused |= {f"get {r}" for g, r, v in granted(program) if v == "get" and not informs(program, r)
                       and (g, r, v) not in seen}  # fmt: skip
            assert sorted(unused - UNUSED[program].keys()) == [], program


def informs(program: str, resource: str) -> bool:
    """Whether the program watches the resource: such a right includes list and get (`RELIST`)."""
    return any(r == resource and verb == "watch" for _, r, verb in granted(program))


@pytest.mark.timeout(180)
async def test_secure_metrics_are_readable_with_the_role_only(tmp_path: Path) -> None:
    """The component adds the flag and the permission for reviews; the roles alone do not suffice."""
    with ControlPlane() as control_plane:
        running = Stack(control_plane.kubeconfig, control_plane.folder, "machine", free_port())
        running.kubectl("create", "namespace", NAMESPACE)
        for folder in ("crd", "rbac"):
            running.kubectl("apply", "--server-side", f"--kustomize={ROOT / 'config' / folder}")
        running.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        for name in ("reader", "stranger"):
            running.kubectl("create", "serviceaccount", name)
        port = free_port()
        program = running.programs["workspace-controller"]
        program.command.remove("--metrics-bind-address=0")
        run_as(running, program.name, "--webhook=false", "--metrics-secure", f"--metrics-bind-address=127.0.0.1:{port}")
        program.start()
        try:
            tokens = {name: running.kubectl("create", "token", name).strip() for name in ("reader", "stranger")}

            async def status(token: str) -> int:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                url = f"https://127.0.0.1:{port}/metrics"
                try:
                    async with (
                        aiohttp.ClientSession() as session,
                        session.get(url, headers=headers, ssl=False) as answer,
                    ):
                        return answer.status
                except aiohttp.ClientError:
                    return 0

            async def answers(token: str, expected: int) -> bool:
                return await status(token) == expected

            await until(lambda: answers("", 401), "the metrics server to refuse anonymous requests")
            assert await status(tokens["reader"]) == 500, "the roles of config/rbac do not contain reviews"
            component = ROOT / "config" / "components" / "secure-metrics" / "rbac.yaml"
            running.kubectl("apply", "--server-side", "-f", str(component))
            await until(lambda: answers(tokens["stranger"], 403), "the stranger to be refused")
            role = "--clusterrole=kaito-metrics-reader"
            running.kubectl("create", "clusterrolebinding", "reader", role, "--serviceaccount=default:reader")
            await until(lambda: answers(tokens["reader"], 200), "the reader to be admitted")
        finally:
            running.stop()


def test_the_documented_rights_are_granted() -> None:
    for program in PROGRAMS:
        rights = {f"{verb} {resource}" for _, resource, verb in granted(program)}
        assert sorted(UNUSED[program].keys() - rights) == []


def test_kubectl_is_new_enough_for_tokens() -> None:
    assert subprocess.run(["kubectl", "create", "token", "--help"], capture_output=True, check=False).returncode == 0
