"""Limits of the CRDs, each tried at its value and one beyond, on the in-memory API server."""

from typing import Any

import pytest

from test.unit.api.crd_server import (
    ADAPTER,
    CLAIM,
    MACHINE,
    SERVE,
    TUNE,
    URL,
    adapters,
    create,
    is_stored,
    requirement,
    taint,
    texts,
)

# base, path, allowed, refused
LIMITS: list[tuple[dict[str, Any], str, Any, Any]] = [
    (SERVE, "metadata.name", "a" * 52, "a" * 53),
    (SERVE, "resource.instanceType", "a" * 63, "a" * 64),
    (SERVE, "resource.count", 1, 0),
    (SERVE, "resource.count", 128, 129),
    (SERVE, "resource.preferredNodes", texts(128), texts(129)),
    (SERVE, "resource.preferredNodes", ["a" * 253], ["a" * 254]),
    (SERVE, "resource.labelSelector.matchLabels", dict.fromkeys(texts(32), "v"), dict.fromkeys(texts(33), "v")),
    (SERVE, "resource.labelSelector.matchLabels", {"a": "v" * 63}, {"a": "v" * 64}),
    (
        SERVE,
        "resource.labelSelector.matchExpressions",
        [{"key": "a", "operator": "Exists"}] * 16,
        [{"key": "a", "operator": "Exists"}] * 17,
    ),
    (
        SERVE,
        "resource.labelSelector.matchExpressions",
        [requirement(values=texts(16))],
        [requirement(values=texts(17))],
    ),
    (
        SERVE,
        "resource.labelSelector.matchExpressions",
        [requirement(key="k" * 317)],
        [requirement(key="k" * 318)],
    ),
    (SERVE, "resource.partition", {"mode": "accelerator", "count": 1}, {"mode": "accelerator", "count": 0}),
    (SERVE, "resource.partition", {"mode": "accelerator", "count": 64}, {"mode": "accelerator", "count": 65}),
    (SERVE, "resource.partition", {"mode": "mig", "profile": "1" * 16}, {"mode": "mig", "profile": "1" * 17}),
    (SERVE, "resource.partition", {"mode": "mig", "profile": "1g.10gb"}, {"mode": "half", "profile": "1g.10gb"}),
    (SERVE, "inference.preset.name", "p", ""),
    (SERVE, "inference.preset.name", "p" * 256, "p" * 257),
    (SERVE, "inference.preset.accessMode", "public", "open"),
    (SERVE, "inference.preset.presetOptions.imagePullSecrets", texts(16), texts(17)),
    (SERVE, "inference.preset.presetOptions.imagePullSecrets", ["a" * 253], ["a" * 254]),
    (SERVE, "inference.preset.presetOptions.modelAccessSecret", "a" * 253, "a" * 254),
    (
        SERVE,
        "inference.preset",
        {"name": "p", "accessMode": "private", "presetOptions": {"image": "i" * 512}},
        {"name": "p", "accessMode": "private", "presetOptions": {"image": "i" * 513}},
    ),
    (SERVE, "inference.config", "a" * 253, "a" * 254),
    (SERVE, "inference.adapters", adapters(10), adapters(11)),
    (
        SERVE,
        "inference.adapters",
        [{**ADAPTER, "strength": "0." + "5" * 14}],
        [{**ADAPTER, "strength": "0." + "5" * 15}],
    ),
    (
        SERVE,
        "inference.adapters",
        [{"source": {"name": "a" * 253, "image": "i" * 512, "imagePullSecrets": texts(16)}}],
        [{"source": {"name": "a" * 254, "image": "i" * 512, "imagePullSecrets": texts(16)}}],
    ),
    (
        SERVE,
        "inference.adapters",
        [{"source": {"name": "a", "image": "i", "imagePullSecrets": texts(16)}}],
        [{"source": {"name": "a", "image": "i", "imagePullSecrets": texts(17)}}],
    ),
    (TUNE, "tuning.method", "lora", "adalora"),
    (TUNE, "tuning.method", "QLoRA", "l"),
    (TUNE, "tuning.config", "a" * 253, "a" * 254),
    (TUNE, "tuning.input.urls", [f"{URL}{i}" for i in range(32)], [f"{URL}{i}" for i in range(33)]),
    (TUNE, "tuning.input.urls", [URL + "a" * (2048 - len(URL))], [URL + "a" * (2049 - len(URL))]),
    (TUNE, "tuning.input.imagePullSecrets", texts(16), texts(17)),
    (TUNE, "tuning.output.image", "i" * 512, "i" * 513),
    (TUNE, "tuning.output.imagePushSecret", "a" * 253, "a" * 254),
    (CLAIM, "spec.requirements", [requirement()] * 100, [requirement()] * 101),
    (CLAIM, "spec.requirements", [requirement(values=texts(256))], [requirement(values=texts(257))]),
    (CLAIM, "spec.requirements", [requirement(minValues=1)], [requirement(minValues=0)]),
    (
        CLAIM,
        "spec.requirements",
        [requirement(values=texts(51), minValues=50)],
        [requirement(values=texts(51), minValues=51)],
    ),
    (CLAIM, "spec.requirements", [requirement(operator="NotIn")], [requirement(operator="Near")]),
    (CLAIM, "spec.taints", [taint()] * 50, [taint()] * 51),
    (CLAIM, "spec.taints", [taint(key="k" * 317)], [taint(key="k" * 318)]),
    (CLAIM, "spec.taints", [taint(value="v" * 63)], [taint(value="v" * 64)]),
    (CLAIM, "spec.taints", [taint(effect="PreferNoSchedule")], [taint(effect="Never")]),
    (CLAIM, "spec.startupTaints", [taint()] * 50, [taint()] * 51),
    (CLAIM, "spec.nodeClassRef.group", "g", ""),
    (CLAIM, "spec.nodeClassRef.group", "g" * 253, "g" * 254),
    (CLAIM, "spec.nodeClassRef.group", "kaito.sh", "kaito.sh/v1"),
    (CLAIM, "spec.nodeClassRef.kind", "k", ""),
    (CLAIM, "spec.nodeClassRef.kind", "k" * 63, "k" * 64),
    (CLAIM, "spec.nodeClassRef.name", "n", ""),
    (CLAIM, "spec.nodeClassRef.name", "n" * 253, "n" * 254),
    (CLAIM, "spec.terminationGracePeriod", "1h30m", "1d"),
    (CLAIM, "spec.terminationGracePeriod", "1" * 31 + "s", "1" * 32 + "s"),
    (CLAIM, "spec.expireAfter", "720h", "720"),
    (CLAIM, "spec.expireAfter", "Never", "never"),
    (CLAIM, "spec.expireAfter", "1" * 31 + "s", "1" * 32 + "s"),
    (MACHINE, "spec.requirements", [requirement()] * 100, [requirement()] * 101),
    (MACHINE, "spec.taints", [taint()] * 50, [taint()] * 51),
    (MACHINE, "spec.startupTaints", [taint()] * 50, [taint()] * 51),
    (MACHINE, "spec.machineTemplateRef.name", "n" * 253, "n" * 254),
]


@pytest.mark.parametrize(
    ("base", "path", "allowed", "refused"), LIMITS, ids=[f"{row[1]}-{index}" for index, row in enumerate(LIMITS)]
)
def test_a_limit_holds_at_its_value(base: dict[str, Any], path: str, allowed: Any, refused: Any) -> None:
    assert is_stored(create(base, {path: allowed})), create(base, {path: allowed})
    answer = create(base, {path: refused})
    assert not is_stored(answer)
    assert any(field.startswith(path) or path == "metadata.name" for field in answer), answer


REQUIRED = [
    (SERVE, "resource"),
    (SERVE, "resource.labelSelector"),
    (SERVE, "inference.preset.name"),
    (TUNE, "tuning.preset"),
    (TUNE, "tuning.method"),
    (TUNE, "tuning.input"),
    (TUNE, "tuning.output"),
    (CLAIM, "spec"),
    (CLAIM, "spec.requirements"),
    (CLAIM, "spec.nodeClassRef"),
    (CLAIM, "spec.nodeClassRef.group"),
    (CLAIM, "spec.nodeClassRef.kind"),
    (CLAIM, "spec.nodeClassRef.name"),
]


@pytest.mark.parametrize(("base", "path"), REQUIRED, ids=[path for _, path in REQUIRED])
def test_a_required_field_is_missed(base: dict[str, Any], path: str) -> None:
    answer = create(base, {path: None})
    assert not is_stored(answer)
    assert answer.get(path) == "Required value"


def test_the_defaults_are_one_node_and_a_public_model() -> None:
    stored = create(SERVE, {})
    assert stored["resource"]["count"] == 1
    assert stored["inference"]["preset"] == {"name": "phi-3-mini-4k-instruct", "accessMode": "public"}
    assert set(stored["resource"]) == {"count", "instanceType", "labelSelector"}
    assert create(CLAIM, {})["spec"] == CLAIM["spec"]
    assert create(MACHINE, {})["spec"] == MACHINE["spec"]
