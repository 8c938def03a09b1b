"""The rules of a Workspace: each broken alone, on create and on update; messages name the field and the remedy."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from kaito.api import Workspace
from kaito.api.workspace.validation import RULES, TRANSITION_RULES, Policy, validate

MACHINES = Policy()
BYO = Policy(node_api="byo")

INFERENCE: dict[str, Any] = {
    "metadata": {"name": "phi"},
    "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "phi-3"}}},
    "inference": {"preset": {"name": "phi-3-mini-4k-instruct"}},
}
TUNING: dict[str, Any] = {
    "metadata": {"name": "tune"},
    "resource": INFERENCE["resource"],
    "tuning": {
        "preset": {"name": "phi-3-mini-128k-instruct"},
        "method": "QLoRA",
        "input": {"urls": ["https://datasets.example/a.parquet"]},
        "output": {"image": "registry.example/image:1", "imagePushSecret": "push"},
    },
}
ADAPTER = {"source": {"name": "a", "image": "registry.example/a:1"}, "strength": "0.5"}


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7386)."""
    result = dict(base)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            inner = result.get(key)
            result[key] = merged(inner if isinstance(inner, Mapping) else {}, value)  # pyright: ignore[reportUnknownArgumentType]  # JSON
        else:
            result[key] = value
    return result


def workspace(base: Mapping[str, Any], change: Mapping[str, Any] | None = None) -> Workspace:
    return Workspace.model_validate(merged(base, change or {}))


def messages(base: Mapping[str, Any], change: Mapping[str, Any] | None = None, policy: Policy = MACHINES) -> list[str]:
    return [str(violation) for violation in validate(workspace(base, change), policy=policy)]


@pytest.mark.parametrize("base", [INFERENCE, TUNING])
def test_a_valid_workspace_breaks_no_rule(base: dict[str, Any]) -> None:
    assert messages(base) == []


def test_a_template_and_adapters_are_valid() -> None:
    template = {"preset": None, "template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}
    assert messages(INFERENCE, {"inference": template}) == []
    assert messages(INFERENCE, {"inference": {"adapters": [ADAPTER]}}) == []


INVALID: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        INFERENCE,
        {"metadata": {"name": "a" * 53}},
        "metadata.name: 'a.*' has 53 characters.*at most 52: choose a shorter",
    ),
    (INFERENCE, {"metadata": {"name": "3-phi"}}, "metadata.name: '3-phi' cannot name its Service: begin with a lower"),
    (INFERENCE, {"metadata": {"name": "phi.3"}}, "metadata.name: 'phi.3' cannot name its Service"),
    (INFERENCE, {"inference": None}, "inference: neither inference nor tuning is set: set one"),
    (INFERENCE, {"tuning": TUNING["tuning"]}, "tuning: inference and tuning are both set: remove one"),
    (INFERENCE, {"resource": {"instanceType": ""}}, r"resource.instanceType: is empty: set an instance type"),
    (INFERENCE, {"resource": {"instanceType": "a b"}}, "resource.instanceType: 'a b' is not an instance type"),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchLabels": None}}},
        "labelSelector: is empty and would match every",
    ),
    (
        INFERENCE,
        {
            "resource": {
                "labelSelector": {"matchLabels": None, "matchExpressions": [{"key": "a", "operator": "Exists"}]}
            }
        },
        "labelSelector.matchLabels: is empty: new nodes are labeled with it",
    ),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchLabels": {"karpenter.sh/nodepool": "x"}}}},
        "matchLabels: 'karpenter.sh/nodepool' is a reserved label key: use one of your own",
    ),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchLabels": {"kaito.sh/installation": "true"}}}},
        "matchLabels: 'kaito.sh/installation' is a reserved label key",
    ),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchLabels": {"node-restriction.kubernetes.io/tenant": "blue"}}}},
        "matchLabels: 'node-restriction.kubernetes.io/tenant' would be set on new nodes, and only administrators may",
    ),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchLabels": {"example.com.node-restriction.kubernetes.io/fips": "true"}}}},
        "matchLabels: 'example.com.node-restriction.kubernetes.io/fips' would be set on new nodes, and only",
    ),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchExpressions": [{"key": "kaito.sh/workspace", "operator": "Exists"}]}}},
        r"matchExpressions\[0\].key: 'kaito.sh/workspace' is a reserved label key",
    ),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchExpressions": [{"key": "apps", "operator": "In", "values": ["no"]}]}}},
        r"matchExpressions\[0\]: \(apps in \(no\)\) contradicts matchLabels",
    ),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchExpressions": [{"key": "b", "operator": "In"}]}}},
        r"matchExpressions\[0\].values: is empty: operator In needs at least one value",
    ),
    (
        INFERENCE,
        {"resource": {"labelSelector": {"matchExpressions": [{"key": "b", "operator": "Exists", "values": ["c"]}]}}},
        r"matchExpressions\[0\].values: must be empty with operator Exists",
    ),
    (INFERENCE, {"resource": {"count": 0}}, "resource.count: 0 is less than 1"),
    (INFERENCE, {"spec": {"replicas": -1}}, "spec.replicas: -1 is less than 0"),
    (INFERENCE, {"spec": {"replicas": 129}}, "spec.replicas: 129 is more than 128"),
    (TUNING, {"spec": {"replicas": 1}}, "spec.replicas: a tuning Job is not scaled"),
    (
        INFERENCE,
        {"resource": {"partition": {"mode": "accelerator", "count": 1}}},
        "resource.partition: with mode accelerator needs existing nodes",
    ),
    (INFERENCE, {"inference": {"preset": None}}, "inference.preset: neither preset nor template is set"),
    (
        INFERENCE,
        {"inference": {"template": {"spec": {"containers": [{}]}}}},
        "inference.template: preset and template are both set: remove one",
    ),
    (
        INFERENCE,
        {"inference": {"preset": None, "template": {"spec": {}}}},
        "inference.template.spec.containers: is empty",
    ),
    (
        INFERENCE,
        {"inference": {"preset": None, "template": {"spec": {"containers": [{}]}}, "adapters": [ADAPTER]}},
        "inference.adapters: belong to a preset",
    ),
    (
        INFERENCE,
        {"inference": {"preset": None, "template": {"spec": {"containers": [{}]}}, "config": "c"}},
        "inference.config: belongs to a preset",
    ),
    (
        INFERENCE,
        {"inference": {"preset": {"accessMode": "private"}}},
        "inference.preset.presetOptions.image: is empty: access mode private needs",
    ),
    (
        INFERENCE,
        {"inference": {"preset": {"presetOptions": {"image": "x"}}}},
        "inference.preset.accessMode: is public, but presetOptions.image is set",
    ),
    (INFERENCE, {"inference": {"adapters": [ADAPTER] * 2}}, r"adapters\[1\].source.name: 'a' is used twice"),
    (
        INFERENCE,
        {"inference": {"adapters": [merged(ADAPTER, {"source": {"name": f"a{n}"}}) for n in range(11)]}},
        "inference.adapters: 11 adapters: use at most 10",
    ),
    (
        INFERENCE,
        {"inference": {"adapters": [merged(ADAPTER, {"source": {"name": "Not_A_Name"}})]}},
        r"adapters\[0\].source.name: 'Not_A_Name' is not a name",
    ),
    (
        INFERENCE,
        {"inference": {"adapters": [merged(ADAPTER, {"source": {"name": None}})]}},
        r"adapters\[0\].source.name: is empty",
    ),
    (
        INFERENCE,
        {"inference": {"adapters": [merged(ADAPTER, {"source": {"image": None}})]}},
        r"adapters\[0\].source: has nothing: set exactly one of image and volumeSource",
    ),
    (
        INFERENCE,
        {"inference": {"adapters": [merged(ADAPTER, {"source": {"volumeSource": {"emptyDir": {}}}})]}},
        r"adapters\[0\].source: has volumeSource and image: set exactly one",
    ),
    (
        INFERENCE,
        {"inference": {"adapters": [merged(ADAPTER, {"source": {"urls": ["https://a.example/x"]}})]}},
        r"adapters\[0\].source.urls: cannot hold an adapter",
    ),
    (
        INFERENCE,
        {"inference": {"adapters": [merged(ADAPTER, {"strength": "1.5"})]}},
        r"adapters\[0\].strength: '1.5' is not a number from 0 to 1",
    ),
    (TUNING, {"resource": {"count": 2}}, "resource.count: 2 nodes for tuning: a tuning Job runs on one node"),
    (TUNING, {"tuning": {"method": "magic"}}, "tuning.method: 'magic' is not a method: use lora or qlora"),
    (TUNING, {"tuning": {"input": {"urls": None}}}, "tuning.input: has nothing: set exactly one of urls"),
    (TUNING, {"tuning": {"input": {"image": "x"}}}, "tuning.input: has urls and image: set exactly one"),
    (TUNING, {"tuning": {"input": {"urls": ["ftp://a.example/b"]}}}, r"input.urls\[0\]: .* is not an absolute http"),
    (
        TUNING,
        {"tuning": {"output": {"image": None, "imagePushSecret": None}}},
        "tuning.output: has nothing: set exactly",
    ),
    (
        TUNING,
        {"tuning": {"output": {"imagePushSecret": None}}},
        "tuning.output.imagePushSecret: is empty: name the Secret",
    ),
    (
        TUNING,
        {"tuning": {"output": {"image": None, "volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}}}},
        "tuning.output.imagePushSecret: is set without image",
    ),
    (
        INFERENCE,
        {"metadata": {"annotations": {"kaito.sh/runtime": "onnx"}}},
        r"metadata.annotations\[kaito.sh/runtime\]: 'onnx' is not valid: use transformers or vllm",
    ),
    (
        INFERENCE,
        {"metadata": {"annotations": {"kaito.sh/node-count-override": "-1"}}},
        r"metadata.annotations\[kaito.sh/node-count-override\]: '-1' is not a positive number",
    ),
]


@pytest.mark.parametrize(("base", "change", "message"), INVALID)
def test_a_violated_rule_names_the_field_and_the_remedy(
    base: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    found = messages(base, change)

    assert len(found) == 1, found
    assert re.search(message, found[0]), found[0]


@pytest.mark.parametrize("strength", ["0", "1", "0.25", ".5", "1.0", "0."])
def test_strengths_between_nothing_and_all_are_valid(strength: str) -> None:
    assert messages(INFERENCE, {"inference": {"adapters": [merged(ADAPTER, {"strength": strength})]}}) == []


@pytest.mark.parametrize("strength", ["-0.1", "1.01", "2", "half", "0x1", "1e-1", " 1"])
def test_other_strengths_are_not(strength: str) -> None:
    assert messages(INFERENCE, {"inference": {"adapters": [merged(ADAPTER, {"strength": strength})]}}) != []


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/a",
        "http://LOCALHOST./a",
        "http://db.localhost/a",
        "http://127.0.0.1/a",
        "http://[::1]/a",
        "http://10.1.2.3/a",
        "http://192.168.0.1:8080/a",
        "http://169.254.169.254/metadata",
        "http://[fe80::1]/a",
        "http://[::ffff:10.0.0.1]/a",
        "http://0.0.0.0/a",
        "http://metadata.google.internal/a",
        "http://kubernetes.default.svc/a",
        "http://kubernetes.default.svc.cluster.local/a",
        "http://2130706433/a",
        "http://0x7f.1/a",
        "http://127.1/a",
        "http://user@127.0.0.1/a",
    ],
)
def test_data_does_not_come_from_inside_the_cluster_or_the_cloud(url: str) -> None:
    (found,) = messages(TUNING, {"tuning": {"input": {"urls": [url]}}})

    assert "points inside the cluster or the cloud: use a public address" in found


@pytest.mark.parametrize(
    "url", ["https://huggingface.co/x.parquet?download=true", "http://8.8.8.8/a", "https://a.example:8443/b"]
)
def test_data_comes_from_public_addresses(url: str) -> None:
    assert messages(TUNING, {"tuning": {"input": {"urls": [url]}}}) == []


@pytest.mark.parametrize(
    "url", ["", "/a", "https://", "https://[bad/a", "https://a.example:port/x", "file:///etc/passwd"]
)
def test_text_that_is_not_a_url_is_rejected(url: str) -> None:
    (found,) = messages(TUNING, {"tuning": {"input": {"urls": [url]}}})

    assert "URL" in found


def test_with_existing_nodes_the_instance_type_must_be_empty_and_expressions_suffice() -> None:
    own = {"resource": {"instanceType": None}}
    expressions = {"matchLabels": None, "matchExpressions": [{"key": "gpu", "operator": "Exists"}]}

    assert messages(INFERENCE, own, BYO) == []
    assert messages(INFERENCE, {"resource": {"instanceType": None, "labelSelector": expressions}}, BYO) == []
    (found,) = messages(INFERENCE, {}, BYO)
    assert re.search(
        r"resource.instanceType: 'Standard_NC6s_v3' is set, but this controller uses existing nodes", found
    )


def test_partitions_are_checked_where_the_controller_places_them() -> None:
    policy = Policy(node_api="byo")

    def partition(**fields: Any) -> list[str]:
        return messages(INFERENCE, {"resource": {"instanceType": None, "partition": fields}}, policy)

    assert partition(mode="mig", profile="1g.10gb") == []
    assert partition(mode="accelerator", count=2) == []
    assert len(partition(mode="mig", profile="big", count=1)) == 2
    assert len(partition(mode="accelerator", profile="1g.10gb")) == 2
    tuned = messages(
        TUNING, {"resource": {"instanceType": None, "partition": {"mode": "accelerator", "count": 1}}}, policy
    )
    assert tuned == ["resource.partition: tuning takes a whole node: remove it"]


def changed(base: Mapping[str, Any], change: Mapping[str, Any]) -> list[str]:
    found = validate(workspace(base, change), workspace(base), policy=MACHINES)
    return [violation.field for violation in found]


@pytest.mark.parametrize(
    ("base", "change", "field"),
    [
        (INFERENCE, {"resource": {"instanceType": "Standard_NC12s_v3"}}, "resource.instanceType"),
        (INFERENCE, {"resource": {"labelSelector": {"matchLabels": {"more": "x"}}}}, "resource.labelSelector"),
        (INFERENCE, {"inference": {"preset": {"name": "phi-3-mini-128k-instruct"}}}, "inference.preset"),
        (TUNING, {"tuning": {"preset": {"name": "phi-3-mini-4k-instruct"}}}, "tuning.preset"),
        (TUNING, {"tuning": {"method": "lora"}}, "tuning.method"),
        (TUNING, {"tuning": {"input": {"name": "other"}}}, "tuning.input.name"),
    ],
)
def test_fields_that_nodes_and_workload_were_created_for_are_immutable(
    base: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    assert changed(base, change) == [field]


def test_inference_does_not_become_tuning() -> None:
    assert changed(INFERENCE, {"inference": None, "tuning": TUNING["tuning"]}) == ["inference", "tuning"]


def test_a_preset_does_not_become_a_template() -> None:
    template = {"preset": None, "template": {"spec": {"containers": [{"name": "a"}]}}}

    assert changed(INFERENCE, {"inference": template}) == ["inference.template"]


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (INFERENCE, {"metadata": {"labels": {"a": "b"}}}),
        (INFERENCE, {"inference": {"adapters": [ADAPTER]}}),
        (INFERENCE, {"inference": {"config": "my-config"}}),
        (INFERENCE, {"inference": {"preset": {"presetOptions": {"modelAccessSecret": "rotated"}}}}),
        (INFERENCE, {"resource": {"preferredNodes": ["a"]}}),
        (TUNING, {"tuning": {"method": "qlora"}}),
        (TUNING, {"tuning": {"input": {"urls": ["https://datasets.example/b.parquet"]}}}),
        (TUNING, {"tuning": {"output": {"image": "registry.example/image:2"}}}),
    ],
)
def test_what_may_change_may(base: dict[str, Any], change: dict[str, Any]) -> None:
    assert changed(base, change) == []


def test_an_empty_instance_type_may_be_filled_in() -> None:
    old, new = workspace(INFERENCE, {"resource": {"instanceType": None}}), workspace(INFERENCE)

    assert validate(new, old, policy=MACHINES) == []
    assert [v.field for v in validate(old, new, policy=MACHINES)] == ["resource.instanceType"]
    assert validate(old, new, policy=BYO) == []


@pytest.mark.parametrize(("base", "change"), [(base, change) for base, change, _ in INVALID])
def test_an_update_is_not_blamed_for_what_was_wrong_before(base: dict[str, Any], change: dict[str, Any]) -> None:
    old = workspace(base, change)
    labeled = old.with_metadata(labels={"touched": "yes"})

    assert validate(labeled, old, policy=MACHINES) == []


@pytest.mark.parametrize(("base", "change"), [(base, change) for base, change, _ in INVALID])
def test_an_update_is_blamed_for_what_it_makes_wrong(base: dict[str, Any], change: dict[str, Any]) -> None:
    if "name" in change.get("metadata", {}):
        return  # the name never changes
    assert validate(workspace(base, change), workspace(base), policy=MACHINES) != []


@pytest.mark.parametrize(("base", "change"), [(base, change) for base, change, _ in INVALID])
def test_an_object_on_its_way_out_passes(base: dict[str, Any], change: dict[str, Any]) -> None:
    going = workspace(base, change).with_metadata(deletion_timestamp="2026-01-01T00:00:00Z", finalizers=[])

    assert validate(going, workspace(base), policy=MACHINES) == []


def test_every_rule_has_a_unique_name() -> None:
    names = [rule.name for rule in (*RULES, *TRANSITION_RULES)]

    assert len(names) == len(set(names))
