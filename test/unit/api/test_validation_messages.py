"""Every rule of a Workspace broken alone: severity, field and the whole message.

`test_validation.py` has the rules by theme; here each value, boundary and second cause stands alone.
"""

# ruff: noqa: E501  # a message stands whole on its line, so that a search finds it

from typing import Any

import pytest

from kaito.api import Workspace
from kaito.api.workspace.validation import Policy, validate
from test.unit.api.crd_server import ADAPTER, EMPTY, SERVE, TUNE, URL, VOLUME, adapters, changed, requirement

MACHINES, BYO = Policy(), Policy(node_api="byo")
OWN: dict[str, Any] = {"resource.instanceType": ""}
Row = tuple[dict[str, Any], dict[str, Any], Policy, list[str]]

SELECTOR = "resource.labelSelector"
EXPRESSIONS = f"{SELECTOR}.matchExpressions"
ANY_ZONE = "matches only some new nodes, which can be in any zone: set resource.zones instead"
RESERVED = "is a reserved label key: use one of your own, for example apps"

RESOURCE: list[Row] = [
    (
        SERVE,
        {"resource.instanceType": ""},
        MACHINES,
        ["error: resource.instanceType: is empty: set an instance type, for example Standard_NC24ads_A100_v4"],
    ),
    (
        SERVE,
        {"resource.instanceType": "a b"},
        MACHINES,
        ["error: resource.instanceType: 'a b' is not an instance type: it must fit a node label"],
    ),
    (
        SERVE,
        {"resource.instanceType": "-a"},
        MACHINES,
        ["error: resource.instanceType: '-a' is not an instance type: it must fit a node label"],
    ),
    (
        SERVE,
        EMPTY,
        BYO,
        [
            "error: resource.instanceType: 'Standard_NC6s_v3' is set, but this controller uses existing nodes (--node-api byo): remove it, and label the GPU nodes so that resource.labelSelector matches them"
        ],
    ),
    (SERVE, {"resource.instanceType": ""}, BYO, []),
    (
        SERVE,
        {SELECTOR: {}},
        MACHINES,
        [
            f"error: {SELECTOR}: is empty and would match every node: add a label, for example matchLabels: {{apps: my-model}}"
        ],
    ),
    (
        SERVE,
        {SELECTOR: {"matchExpressions": [requirement(operator="Exists", values=[])]}},
        MACHINES,
        [
            f"error: {SELECTOR}.matchLabels: is empty: new nodes are labeled with it, so at least one label is needed next to matchExpressions"
        ],
    ),
    (
        SERVE,
        {SELECTOR: {"matchExpressions": [requirement(operator="Exists", values=[])]}, "resource.instanceType": ""},
        BYO,
        [],
    ),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="kubernetes.io/os", operator="In", values=[])]},
        MACHINES,
        [f"error: {EXPRESSIONS}[0].values: is empty: operator In needs at least one value"],
    ),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="kubernetes.io/os", operator="NotIn", values=[])]},
        MACHINES,
        [f"error: {EXPRESSIONS}[0].values: is empty: operator NotIn needs at least one value"],
    ),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="kubernetes.io/os", operator="Exists", values=["a"])]},
        MACHINES,
        [f"error: {EXPRESSIONS}[0].values: must be empty with operator Exists"],
    ),
    (
        SERVE,
        {f"{SELECTOR}.matchLabels": {"kaito.sh/workspace": "a"}},
        MACHINES,
        [f"error: {SELECTOR}.matchLabels: 'kaito.sh/workspace' {RESERVED}"],
    ),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="karpenter.sh/a", operator="Exists", values=[])]},
        MACHINES,
        [f"error: {EXPRESSIONS}[0].key: 'karpenter.sh/a' {RESERVED}"],
    ),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="apps", values=["other"])]},
        MACHINES,
        [
            f"error: {EXPRESSIONS}[0]: (apps in (other)) contradicts matchLabels, so no node can match: remove one of the two"
        ],
    ),
    (SERVE, {EXPRESSIONS: [requirement(key="apps", values=["phi"])]}, MACHINES, []),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="team", values=["a"])]},
        MACHINES,
        [
            f"error: {EXPRESSIONS}[0]: (team in (a)) matches no new node, which has no such label: remove it, or set the label in matchLabels"
        ],
    ),
    (SERVE, {EXPRESSIONS: [requirement(key="team", values=["a"])], "resource.preferredNodes": ["n"]}, MACHINES, []),
    (SERVE, {EXPRESSIONS: [requirement(key="team", operator="NotIn", values=["a"])]}, MACHINES, []),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="kubernetes.io/os", values=["windows"])]},
        MACHINES,
        [
            f"error: {EXPRESSIONS}[0]: (kubernetes.io/os in (windows)) matches no new node, which has 'linux': remove it, or set the label in matchLabels"
        ],
    ),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="kubernetes.io/os", operator="NotIn", values=["linux"])]},
        MACHINES,
        [
            f"error: {EXPRESSIONS}[0]: (kubernetes.io/os notin (linux)) matches no new node, which has 'linux': remove it, or set the label in matchLabels"
        ],
    ),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="node.kubernetes.io/instance-type", values=["other"])]},
        MACHINES,
        [
            f"error: {EXPRESSIONS}[0]: (node.kubernetes.io/instance-type in (other)) matches no new node, which has 'Standard_NC6s_v3': remove it, or set the label in matchLabels"
        ],
    ),
    (
        SERVE,
        {EXPRESSIONS: [requirement(key="topology.kubernetes.io/zone", values=["1"])]},
        MACHINES,
        [f"error: {EXPRESSIONS}[0]: (topology.kubernetes.io/zone in (1)) {ANY_ZONE}"],
    ),
    (
        SERVE,
        {
            EXPRESSIONS: [requirement(key="topology.kubernetes.io/zone", values=["eastus-1"])],
            "resource.zones": ["1"],
        },
        MACHINES,
        [],
    ),
    (SERVE, {EXPRESSIONS: [requirement(key="team", values=["a"])], "resource.instanceType": ""}, BYO, []),
    (
        SERVE,
        {"resource.count": 0},
        MACHINES,
        ["error: resource.count: 0 is less than 1: a Workspace needs at least one node"],
    ),
    (SERVE, {"resource.count": 128}, MACHINES, []),
    (
        SERVE,
        {"resource.count": 129},
        MACHINES,
        ["error: resource.count: 129 is more than 128, the maximum for one Workspace"],
    ),
    (
        TUNE,
        {"resource.count": 2},
        MACHINES,
        ["error: resource.count: 2 nodes for tuning: a tuning Job runs on one node, set 1 or remove it"],
    ),
    (
        SERVE,
        {"resource.preferredNodes": ["n"], "resource.instanceType": ""},
        BYO,
        [
            "warning: resource.preferredNodes: has no effect with existing nodes (--node-api byo): resource.labelSelector chooses the nodes"
        ],
    ),
    (SERVE, {"resource.preferredNodes": ["n"]}, MACHINES, []),
    (
        SERVE,
        {"resource.preferredNodes": ["n", "", "Node_A"]},
        MACHINES,
        [
            f"warning: resource.preferredNodes[{index}]: {name!r} cannot be the name of a node: use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
            for index, name in ((1, ""), (2, "Node_A"))
        ],
    ),
    (
        SERVE,
        {"resource.partition": {"mode": "accelerator", "count": 1}},
        MACHINES,
        [
            "error: resource.partition: with mode accelerator needs existing nodes (--node-api byo), because a copy uses all GPUs of a new node: remove it"
        ],
    ),
    (SERVE, {"resource.partition": {"mode": "mig", "profile": "1g.10gb"}}, MACHINES, []),
    (
        SERVE,
        {"resource.partition": {"mode": "mig"}},
        MACHINES,
        ["error: resource.partition.profile: '' is not a MIG profile such as 1g.10gb"],
    ),
    (
        SERVE,
        {"resource.partition": {"mode": "mig", "profile": "1g.10gb"}},
        Policy(node_api="karpenter"),
        [
            "error: resource.partition: needs gpu-provisioner, because Karpenter's providers do not divide the GPUs of new nodes: remove it, or run this controller with --node-api machine, or with nodeclaim and the node class of gpu-provisioner"
        ],
    ),
    (SERVE, {**OWN, "resource.partition": {"mode": "mig", "profile": "1g.10gb"}}, BYO, []),
    (
        SERVE,
        {**OWN, "resource.partition": {"mode": "mig", "profile": "1g"}},
        BYO,
        ["error: resource.partition.profile: '1g' is not a MIG profile such as 1g.10gb"],
    ),
    (
        SERVE,
        {**OWN, "resource.partition": {"mode": "mig"}},
        BYO,
        ["error: resource.partition.profile: '' is not a MIG profile such as 1g.10gb"],
    ),
    (
        SERVE,
        {**OWN, "resource.partition": {"mode": "mig", "profile": "1g.10gb", "count": 1}},
        BYO,
        ["error: resource.partition.count: belongs to mode accelerator: remove it, or change the mode"],
    ),
    (SERVE, {**OWN, "resource.partition": {"mode": "accelerator", "count": 1}}, BYO, []),
    (
        SERVE,
        {**OWN, "resource.partition": {"mode": "accelerator"}},
        BYO,
        ["error: resource.partition.count: is missing: mode accelerator needs the number of GPUs"],
    ),
    (
        SERVE,
        {**OWN, "resource.partition": {"mode": "accelerator", "count": 0}},
        BYO,
        ["error: resource.partition.count: is missing: mode accelerator needs the number of GPUs"],
    ),
    (
        SERVE,
        {**OWN, "resource.partition": {"mode": "accelerator", "count": 1, "profile": "1g.10gb"}},
        BYO,
        ["error: resource.partition.profile: belongs to mode mig: remove it, or change the mode"],
    ),
    (
        TUNE,
        {**OWN, "resource.partition": {"mode": "accelerator", "count": 1}},
        BYO,
        ["error: resource.partition: tuning takes a whole node: remove it"],
    ),
]

ADAPTERS = "inference.adapters"
TEMPLATE: dict[str, Any] = {"template": {"spec": {"containers": [{"name": "a"}]}}}

WORKLOAD: list[Row] = [
    (
        SERVE,
        {"inference": EMPTY},
        MACHINES,
        [
            "error: inference.preset: neither preset nor template is set: name a model in inference.preset.name, or give a pod template"
        ],
    ),
    (
        SERVE,
        {"inference.template": TEMPLATE["template"]},
        MACHINES,
        ["error: inference.template: preset and template are both set: remove one"],
    ),
    (SERVE, {"inference": TEMPLATE}, MACHINES, []),
    (
        SERVE,
        {"inference": {"template": EMPTY}},
        MACHINES,
        ["error: inference.template.spec.containers: is empty: a pod needs at least one container"],
    ),
    (
        SERVE,
        {"inference": {"template": {"spec": {"containers": []}}}},
        MACHINES,
        ["error: inference.template.spec.containers: is empty: a pod needs at least one container"],
    ),
    (
        SERVE,
        {"inference": TEMPLATE | {"adapters": [ADAPTER]}},
        MACHINES,
        [f"error: {ADAPTERS}: belong to a preset: remove them, or use inference.preset"],
    ),
    (
        SERVE,
        {"inference": TEMPLATE | {"config": "c"}},
        MACHINES,
        ["error: inference.config: belongs to a preset: remove it, or mount the ConfigMap in the template"],
    ),
    (
        SERVE,
        {"inference.preset.accessMode": "private"},
        MACHINES,
        [
            "error: inference.preset.presetOptions.image: is empty: access mode private needs the image that holds the model"
        ],
    ),
    (
        TUNE,
        {"tuning.preset.accessMode": "private"},
        MACHINES,
        [
            "error: tuning.preset.presetOptions.image: is empty: access mode private needs the image that holds the model"
        ],
    ),
    (
        SERVE,
        {"inference.preset.presetOptions.image": "a/b:1"},
        MACHINES,
        [
            "error: inference.preset.accessMode: is public, but presetOptions.image is set: use private, or remove the image"
        ],
    ),
    (SERVE, {ADAPTERS: adapters(10)}, MACHINES, []),
    (SERVE, {ADAPTERS: adapters(11)}, MACHINES, [f"error: {ADAPTERS}: 11 adapters: use at most 10"]),
    (
        SERVE,
        {ADAPTERS: [ADAPTER, ADAPTER]},
        MACHINES,
        [f"error: {ADAPTERS}[1].source.name: 'a' is used twice: give each adapter its own"],
    ),
    (
        SERVE,
        {ADAPTERS: [{"source": {"image": "a/b:1"}}] * 2},
        MACHINES,
        [f"error: {ADAPTERS}[{i}].source.name: is empty: name the adapter, for example my-adapter" for i in (0, 1)],
    ),
    (
        SERVE,
        {ADAPTERS: [{"source": {"name": "A", "image": "a/b:1"}}]},
        MACHINES,
        [f"error: {ADAPTERS}[0].source.name: 'A' is not a name: use lower-case letters, digits, '-' and '.'"],
    ),
    (
        SERVE,
        {ADAPTERS: [{"source": {"name": "a", "urls": [URL]}}]},
        MACHINES,
        [f"error: {ADAPTERS}[0].source.urls: cannot hold an adapter: use image or volumeSource"],
    ),
    (
        SERVE,
        {ADAPTERS: [{"source": {"name": "a"}}]},
        MACHINES,
        [f"error: {ADAPTERS}[0].source: has nothing: set exactly one of image and volumeSource"],
    ),
    (
        SERVE,
        {ADAPTERS: [{"source": {"name": "a", "image": "a/b:1", "volumeSource": VOLUME}}]},
        MACHINES,
        [f"error: {ADAPTERS}[0].source: has volumeSource and image: set exactly one of image and volumeSource"],
    ),
    (
        SERVE,
        {ADAPTERS: [{**ADAPTER, "strength": "1.1"}]},
        MACHINES,
        [f"error: {ADAPTERS}[0].strength: '1.1' is not a number from 0 to 1 as text, for example \"0.5\""],
    ),
    *[
        (SERVE, {ADAPTERS: [{**ADAPTER, "strength": strength}]}, MACHINES, list[str]())
        for strength in ("0", "0.", "1", "1.0", ".5", "")
    ],
    (TUNE, {"tuning.method": "magic"}, MACHINES, ["error: tuning.method: 'magic' is not a method: use lora or qlora"]),
    (
        TUNE,
        {"tuning.input": EMPTY},
        MACHINES,
        ["error: tuning.input: has nothing: set exactly one of urls, volumeSource and image"],
    ),
    (
        TUNE,
        {"tuning.input.image": "a/b:1"},
        MACHINES,
        ["error: tuning.input: has urls and image: set exactly one of urls, volumeSource and image"],
    ),
    (
        TUNE,
        {"tuning.input": {"volumeSource": VOLUME}},
        MACHINES,
        ["warning: tuning.input.volumeSource.emptyDir: is empty when the run starts: use a volume with data"],
    ),
    (TUNE, {"tuning.input": {"volumeSource": {"hostPath": {"path": "/data"}}}}, MACHINES, []),
    (
        TUNE,
        {"tuning.output": EMPTY},
        MACHINES,
        ["error: tuning.output: has nothing: set exactly one of image and volumeSource"],
    ),
    (
        TUNE,
        {"tuning.output.volumeSource": {"hostPath": {"path": "/data"}}},
        MACHINES,
        ["error: tuning.output: has volumeSource and image: set exactly one of image and volumeSource"],
    ),
    (
        TUNE,
        {"tuning.output": {"volumeSource": VOLUME}},
        MACHINES,
        [
            "warning: tuning.output.volumeSource.emptyDir: is deleted with the pod and the adapter: use a volume such as a persistentVolumeClaim"
        ],
    ),
    (TUNE, {"tuning.output": {"volumeSource": {"hostPath": {"path": "/data"}}}}, MACHINES, []),
    (
        TUNE,
        {"tuning.output.imagePushSecret": ""},
        MACHINES,
        [
            "error: tuning.output.imagePushSecret: is empty: name the Secret (type kubernetes.io/dockerconfigjson) that may push the image"
        ],
    ),
    (
        TUNE,
        {"tuning.output": {"volumeSource": {"hostPath": {"path": "/data"}}, "imagePushSecret": "s"}},
        MACHINES,
        ["error: tuning.output.imagePushSecret: is set without image: remove it, or set image"],
    ),
]


def annotation(key: str, value: str) -> dict[str, Any]:
    return {"metadata.annotations": {key: value}}


def note(key: str, text: str, severity: str = "error") -> list[str]:
    return [f"{severity}: metadata.annotations[{key}]: {text}"]


def choice(key: str, value: str, words: str) -> Row:
    return SERVE, annotation(key, value), MACHINES, note(key, f"{value!r} is not valid: use {words}, or remove it")


NO_EFFECT = "is not an annotation of Workspaces and has no effect"
NO_MIRROR = "this controller does not support model mirrors: remove it"
NO_STREAM = "this controller does not stream weights: remove it"
CHOICES = (
    "kaito.sh/bypass-resource-checks, kaito.sh/disable-benchmark, kaito.sh/enablelb, kaito.sh/model-streaming, "
    "kaito.sh/node-class, kaito.sh/node-class-name, kaito.sh/node-count-override, kaito.sh/node-image-family, "
    "kaito.sh/performance-mode, kaito.sh/replan, kaito.sh/runtime, kaito.sh/use-local-weights"
)
COUNT = "kaito.sh/node-count-override"

ANNOTATIONS: list[Row] = [
    choice("kaito.sh/runtime", "torch", "transformers or vllm"),
    choice("kaito.sh/node-image-family", "windows", "azurelinux or ubuntu"),
    choice("kaito.sh/enablelb", "yes", "true or false"),
    choice("kaito.sh/bypass-resource-checks", "1", "true or false"),
    choice("kaito.sh/performance-mode", "fast", "balanced or interactivity or throughput"),
    choice("kaito.sh/disable-benchmark", "", "true or false"),
    choice("kaito.sh/use-local-weights", "no", "true or false"),
    choice("kaito.sh/model-streaming", "enabled", "disabled"),
    choice("kaito.sh/node-class-name", "mine", "default"),
    *[
        (SERVE, annotation(key, value), MACHINES, list[str]())
        for key, value in (
            ("kaito.sh/runtime", " vLLM "),
            ("kaito.sh/runtime", "transformers"),
            ("kaito.sh/node-image-family", "AzureLinux"),
            ("kaito.sh/node-image-family", "ubuntu"),
            ("kaito.sh/enablelb", "False"),
            ("kaito.sh/performance-mode", "balanced"),
            ("kaito.sh/performance-mode", "interactivity"),
            ("kaito.sh/performance-mode", "throughput"),
            ("kaito.sh/use-local-weights", "false"),
            ("kaito.sh/model-streaming", "disabled"),
            ("kaito.sh/node-class-name", "default"),
            ("kaito.sh/provision-attempts", "{}"),
            ("kaito.sh/upgrade-start-time", "x"),
            (COUNT, "1"),
            (COUNT, "128"),
            ("other.example/a", "b"),
            ("notkaito.sh/a", "b"),
            ("kaito.sh", "b"),
        )
    ],
    (
        SERVE,
        annotation("kaito.sh/use-local-weights", "true"),
        MACHINES,
        note(
            "kaito.sh/use-local-weights",
            "weights on the disks of nodes are not supported: remove it, the weights are downloaded",
        ),
    ),
    (
        SERVE,
        annotation("kaito.sh/model-mirror-storage-class", "x"),
        MACHINES,
        note("kaito.sh/model-mirror-storage-class", NO_MIRROR),
    ),
    (
        SERVE,
        annotation("inference.kaito.sh/static-model-mirror", "x"),
        MACHINES,
        note("inference.kaito.sh/static-model-mirror", NO_MIRROR),
    ),
    *[
        (SERVE, annotation(key, "x"), MACHINES, note(key, NO_STREAM))
        for key in (
            "kaito.sh/streaming-service-account",
            "inference.kaito.sh/stream-datarefs-url",
            "inference.kaito.sh/stream-identity-client-id",
            "inference.kaito.sh/stream-source-type",
        )
    ],
    *[
        (
            SERVE,
            annotation(COUNT, value),
            MACHINES,
            note(COUNT, f"{value!r} is not a positive number of nodes: use a whole number from 1 to 128"),
        )
        for value in ("0", "129", "two", "-1", "1.5", "")
    ],
    (TUNE, annotation(COUNT, "2"), MACHINES, note(COUNT, "2 nodes for tuning, which runs on one: remove it")),
    (TUNE, annotation(COUNT, "1"), MACHINES, []),
    (
        SERVE,
        annotation("kaito.sh/runtimes", "x"),
        MACHINES,
        note("kaito.sh/runtimes", f"{NO_EFFECT}, did you mean kaito.sh/runtime?", "warning"),
    ),
    (
        SERVE,
        annotation("kaito.sh/zzzzzzzzzzzzzzzz", "x"),
        MACHINES,
        note("kaito.sh/zzzzzzzzzzzzzzzz", f"{NO_EFFECT}; known: {CHOICES}", "warning"),
    ),
    (
        SERVE,
        annotation("sub.kaito.sh/zzzzzzzzzzzz", "x"),
        MACHINES,
        note("sub.kaito.sh/zzzzzzzzzzzz", f"{NO_EFFECT}; known: {CHOICES}", "warning"),
    ),
    (
        SERVE,
        annotation("kaito.sh/node-image-family", "ubuntu") | {"resource.instanceType": ""},
        BYO,
        note(
            "kaito.sh/node-image-family",
            "has no effect: this controller uses existing nodes (--node-api byo)",
            "warning",
        ),
    ),
]

ROWS = [*RESOURCE, *WORKLOAD, *ANNOTATIONS]


def found(base: dict[str, Any], change: dict[str, Any], policy: Policy) -> list[str]:
    workspace = Workspace.model_validate(changed(base, change))
    return [f"{v.severity}: {v}" for v in validate(workspace, policy=policy)]


@pytest.mark.parametrize(("base", "change", "policy", "expected"), ROWS, ids=[f"{i}" for i in range(len(ROWS))])
def test_the_message_of_a_violated_rule(
    base: dict[str, Any], change: dict[str, Any], policy: Policy, expected: list[str]
) -> None:
    assert found(base, change, policy) == expected
