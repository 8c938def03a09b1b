"""Rules of the CRDs: rejections with their messages, immutable fields, accepted objects."""

from typing import Any

import pytest

from test.unit.api.crd_server import (
    ADAPTER,
    CLAIM,
    EMPTY,
    MACHINE,
    SERVE,
    TUNE,
    URL,
    VOLUME,
    causes,
    create,
    is_stored,
    replace,
    requirement,
    texts,
)

GONE = {"inference": None}
RESERVED = "has a label key reserved for the controllers: use one of your own, for example apps"

# base, change, field, message
RULES: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    (
        SERVE,
        {"metadata.name": "3-phi"},
        "",
        (
            "metadata.name cannot name a Service: begin with a lower-case letter, go on with such letters, digits "
            "and '-', end with a letter or digit"
        ),
    ),
    (
        SERVE,
        {"metadata.name": "a" * 53},
        "",
        "metadata.name is too long for the Service and pods of that name: use at most 52 characters",
    ),
    (
        SERVE,
        {"resource.instanceTypes": ["Standard_NC6s_v3"]},
        "resource.instanceTypes",
        "instanceType and instanceTypes are both set: remove one",
    ),
    (
        SERVE,
        {"resource.instanceType": None, "resource.instanceTypes": ["Standard_NC6s_v3", "standard_nc6s_v3"]},
        "resource.instanceTypes",
        "names an instance type twice: remove one of them",
    ),
    (SERVE, GONE, "inference", "neither inference nor tuning is set: set one, for example inference.preset.name"),
    (
        SERVE,
        {"tuning": TUNE["tuning"]},
        "tuning",
        "inference and tuning are both set: remove one, or make a second Workspace",
    ),
    (
        TUNE,
        {"resource.count": 2},
        "resource.count",
        "a tuning Job runs on one node: set resource.count to 1 or remove it",
    ),
    (
        TUNE,
        {"resource.partition": {"mode": "mig", "profile": "1g.10gb"}},
        "resource.partition",
        "tuning takes a whole node: remove resource.partition",
    ),
    (
        SERVE,
        {"resource.labelSelector.matchLabels": {}},
        "resource.labelSelector",
        "is empty and would match every node: add a label, for example matchLabels: {apps: my-model}",
    ),
    (
        SERVE,
        {"resource.labelSelector.matchLabels": {"kaito.sh/workspace": "x"}},
        "resource.labelSelector.matchLabels",
        RESERVED,
    ),
    (
        SERVE,
        {"resource.labelSelector.matchLabels": {"karpenter.sh/a": "x"}},
        "resource.labelSelector.matchLabels",
        RESERVED,
    ),
    (
        SERVE,
        {"resource.labelSelector.matchLabels": {"karpenter.kaito.sh/a": "x"}},
        "resource.labelSelector.matchLabels",
        RESERVED,
    ),
    (
        SERVE,
        {"resource.labelSelector.matchExpressions": [requirement(key="kaito.sh/machine-type")]},
        "resource.labelSelector.matchExpressions",
        RESERVED,
    ),
    *(
        (
            SERVE,
            {"resource.labelSelector.matchExpressions": [{"key": "a", "operator": operator, "values": values}]},
            "resource.labelSelector.matchExpressions[0].values",
            "operators In and NotIn need at least one value, Exists and DoesNotExist none",
        )
        for operator, values in (("In", []), ("NotIn", []), ("Exists", ["x"]), ("DoesNotExist", ["x"]))
    ),
    *(
        (SERVE, {"resource.partition": partition}, "resource.partition", message)
        for message, partitions in {
            "mode mig needs a profile such as 1g.10gb and no count": (
                {"mode": "mig"},
                {"mode": "mig", "profile": "1g.10gb", "count": 1},
            ),
            "mode accelerator needs the count of GPUs and no profile": (
                {"mode": "accelerator"},
                {"mode": "accelerator", "count": 1, "profile": "1g.10gb"},
            ),
        }.items()
        for partition in partitions
    ),
    (
        SERVE,
        {"inference.preset": None},
        "inference",
        "neither preset nor template is set: name a model in preset.name, or give a pod template",
    ),
    (SERVE, {"inference.template": {"spec": {}}}, "inference", "preset and template are both set: remove one"),
    (
        SERVE,
        {"inference": {"template": {"spec": {}}, "adapters": [ADAPTER]}},
        "inference.adapters",
        "belong to a preset: remove them, or use preset instead of template",
    ),
    (
        SERVE,
        {"inference": {"template": {"spec": {}}, "config": "a"}},
        "inference.config",
        "belongs to a preset: remove it, or mount the ConfigMap in the template",
    ),
    (
        SERVE,
        {"inference.adapters": [ADAPTER, ADAPTER]},
        "inference.adapters",
        "two adapters have the same source.name: give each its own",
    ),
    *(
        (
            SERVE,
            {"inference.adapters": [{"source": source}]},
            "inference.adapters[0].source.name",
            "name the adapter with lower-case letters, digits, '-' and '.', for example my-adapter",
        )
        for source in ({"image": "i"}, {"name": "A", "image": "i"}, {"name": "a-", "image": "i"})
    ),
    *(
        (
            SERVE,
            {"inference.adapters": [{"source": source}]},
            "inference.adapters[0].source",
            "set exactly one of image and volumeSource",
        )
        for source in ({"name": "a"}, {"name": "a", "image": ""}, {"name": "a", "image": "i", "volumeSource": VOLUME})
    ),
    (
        SERVE,
        {"inference.adapters": [{"source": {"name": "a", "image": "i", "urls": [URL]}}]},
        "inference.adapters[0].source.urls",
        "cannot hold an adapter: use image or volumeSource",
    ),
    *(
        (
            SERVE,
            {"inference.adapters": [{**ADAPTER, "strength": strength}]},
            "inference.adapters[0].strength",
            "must be a number from 0 to 1 as text, for example '0.5'",
        )
        for strength in ("1.1", "2", "-0.5", "0,5", "1.01", ".", "x0.5")
    ),
    *(
        (
            SERVE,
            {"inference.preset": {"name": "p", "accessMode": "private", **options}},
            "inference.preset.presetOptions.image",
            "accessMode private needs presetOptions.image, the image that holds the model",
        )
        for options in (EMPTY, {"presetOptions": EMPTY}, {"presetOptions": {"image": ""}})
    ),
    (
        SERVE,
        {"inference.preset.presetOptions.image": "registry.example/a:1"},
        "inference.preset.accessMode",
        "is public, but presetOptions.image is set: use private, or remove the image",
    ),
    (
        SERVE,
        {"inference.preset.presetOptions.weights": {"source": "Download", "artifact": "r.example/a:1"}},
        "inference.preset.presetOptions.weights.artifact",
        "has no effect with source Download: remove it, or use another source",
    ),
    *(
        (
            SERVE,
            {"inference.preset.presetOptions.weights": {"cacheClaim": "models", **source}},
            "inference.preset.presetOptions.weights.cacheClaim",
            "belongs to source NodeCache: set source to NodeCache, or remove it",
        )
        for source in (EMPTY, {"source": "Pull"})
    ),
    *(
        (
            SERVE,
            {
                "inference.preset": {
                    "name": "p",
                    "accessMode": "private",
                    "presetOptions": {"image": "i", "weights": weights},
                }
            },
            "inference.preset.presetOptions.weights",
            "have no effect with accessMode private, where presetOptions.image contains the weights: remove them",
        )
        for weights in ({"source": "Pull"}, {"artifact": "r.example/a:1"})
    ),
    *(
        (
            SERVE,
            {"inference.preset.podOptions.env": [{"name": name, "value": "x"}]},
            "inference.preset.podOptions.env",
            (
                "has a variable that the controller sets (KAITO_*, DATA_URLS, HF_HUB_CACHE, HF_TOKEN): remove it; "
                "a token belongs into presetOptions.modelAccessSecret"
            ),
        )
        for name in ("KAITO_X", "HF_TOKEN", "DATA_URLS")
    ),
    (
        SERVE,
        {"inference.preset.podOptions.env": [{"name": "A", "value": "x", "valueFrom": EMPTY}]},
        "inference.preset.podOptions.env[0].valueFrom",
        "has value and valueFrom: remove one",
    ),
    (TUNE, {"tuning.method": "qloras"}, "tuning.method", "is not a method: use lora or qlora"),
    *(
        (TUNE, {"tuning.input": source}, "tuning.input", "set exactly one of urls, volumeSource and image")
        for source in (
            EMPTY,
            {"urls": texts(0)},
            {"image": ""},
            {"urls": [URL], "image": "i"},
            {"urls": [URL], "volumeSource": VOLUME},
            {"image": "i", "volumeSource": VOLUME},
        )
    ),
    *(
        (TUNE, {"tuning.input.urls": [url]}, "tuning.input.urls", "must be absolute http or https URLs")
        for url in ("/a", "ftp://data.example/a", "https:///a", "xhttps://data.example")
    ),
    *(
        (TUNE, {"tuning.output": output}, "tuning.output", "set exactly one of image and volumeSource")
        for output in (
            EMPTY,
            {"image": ""},
            {"image": "i", "imagePushSecret": "s", "volumeSource": VOLUME},
        )
    ),
    *(
        (
            TUNE,
            {"tuning.output": output},
            "tuning.output.imagePushSecret",
            "imagePushSecret names the Secret that may push image: set both or neither",
        )
        for output in (
            {"image": "i"},
            {"image": "i", "imagePushSecret": ""},
            {"volumeSource": VOLUME, "imagePushSecret": "s"},
        )
    ),
    (
        CLAIM,
        {"spec.requirements": [requirement(values=[])]},
        "spec.requirements",
        "requirements with operator 'In' must have a value defined",
    ),
    *(
        (
            CLAIM,
            {"spec.requirements": [requirement(operator=operator, values=values)]},
            "spec.requirements",
            "requirements operator 'Gt', 'Lt', 'Gte' or 'Lte' must have a single positive integer value",
        )
        for operator, values in (
            ("Gt", []),
            ("Lt", ["1", "2"]),
            ("Gte", ["x"]),
            ("Lte", ["-1"]),
            ("Gt", ["1x"]),
        )
    ),
    (
        CLAIM,
        {"spec.requirements": [requirement(values=["a"], minValues=2)]},
        "spec.requirements",
        "requirements with 'minValues' must have at least that many values specified in the 'values' field",
    ),
    *(
        (
            CLAIM,
            {"spec.requirements": [requirement(key=key)]},
            "spec.requirements",
            'label domain "karpenter.sh" is restricted',
        )
        for key in ("karpenter.sh/initialized", "sub.karpenter.sh/a")
    ),
    (
        CLAIM,
        {"spec.requirements": [requirement(key="kubernetes.io/hostname")]},
        "spec.requirements",
        'label "kubernetes.io/hostname" is restricted',
    ),
]


@pytest.mark.parametrize(("base", "change", "field", "message"), RULES, ids=[str(index) for index in range(len(RULES))])
def test_a_rule_rejects_with_field_and_remedy(
    base: dict[str, Any], change: dict[str, Any], field: str, message: str
) -> None:
    answer = create(base, change)

    assert not is_stored(answer)
    found = {where.removeprefix("<nil>"): text.removeprefix("Invalid value: ") for where, text in answer.items()}
    assert found.get(field) == message, found


ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (SERVE, {"resource.labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
    (SERVE, {"resource.labelSelector.matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}),
    (SERVE, {"resource.labelSelector.matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}),
    (SERVE, {"resource.labelSelector.matchLabels": {"kaito.sh/mine": "x", "mykarpenter.sh/a": "x"}}),
    (SERVE, {"resource.instanceType": ""}),
    (SERVE, {"resource.instanceType": None, "resource.instanceTypes": ["Standard_NC6s_v3", "Standard_NC12s_v3"]}),
    (SERVE, {"resource.capacityType": "spot-preferred", "resource.zones": ["1", "2"]}),
    (SERVE, {"inference": {"template": {"spec": {}}, "adapters": [], "config": ""}}),
    (SERVE, {"inference.adapters": [{"source": {"name": "a", "volumeSource": VOLUME, "urls": []}}]}),
    (SERVE, {"inference.preset.presetOptions": {"image": ""}}),
    (SERVE, {"inference.preset": {"name": "p", "accessMode": "private", "presetOptions": {"image": "i"}}}),
    (SERVE, {"inference.preset.presetOptions.weights": {"source": "NodeCache", "cacheClaim": "models"}}),
    (SERVE, {"inference.preset.presetOptions.weights": {"artifact": "r.example/a:1"}}),
    (SERVE, {"inference.preset.podOptions.env": [{"name": "HTTPS_PROXY", "value": ""}]}),
    (SERVE, {"inference.preset.podOptions": {"resources": {"limits": {"memory": "1Gi", "cpu": 2}}}}),
    *((SERVE, {"inference.adapters": [{**ADAPTER, "strength": s}]}) for s in ("", "0", "1", "1.0", "1.", "0.25", ".5")),
    *((TUNE, {"tuning.method": method}) for method in ("LORA", "QLoRA", "lora", "qlora")),
    (TUNE, {"resource.count": 1}),
    (TUNE, {"tuning.input": {"image": "i"}}),
    (TUNE, {"tuning.input": {"volumeSource": VOLUME}}),
    (TUNE, {"tuning.input.urls": ["HTTP://data.example"]}),
    (TUNE, {"tuning.output": {"volumeSource": VOLUME}}),
    (CLAIM, {"spec.requirements": [requirement(operator="Gt", values=["4"])]}),
    (CLAIM, {"spec.requirements": [requirement(operator="Exists", values=[])]}),
    (CLAIM, {"spec.requirements": [requirement(values=["a", "b"], minValues=2)]}),
    *(
        (CLAIM, {"spec.requirements": [requirement(key=f"karpenter.sh/{key}")]})
        for key in ("capacity-type", "nodepool")
    ),
    (CLAIM, {"spec.requirements": [requirement(key="mykarpenter.sh/a")]}),
    (MACHINE, {"spec": {}}),
    (MACHINE, {"spec.machineTemplateRef": None}),
]


@pytest.mark.parametrize(("base", "change"), ACCEPTED, ids=[str(index) for index in range(len(ACCEPTED))])
def test_what_no_rule_forbids_is_accepted(base: dict[str, Any], change: dict[str, Any]) -> None:
    answer = create(base, change)
    assert is_stored(answer), answer


FIXED = "cannot be changed: delete the Workspace and create a new one"
EXISTENCE = "cannot be added or removed later: delete the Workspace and create a new one"
PARTITION: dict[str, Any] = {"resource.partition": {"mode": "mig", "profile": "1g.10gb"}}
PRIVATE: dict[str, Any] = {
    "inference.preset": {"name": "p", "accessMode": "private", "presetOptions": {"image": "registry.example/a:1"}}
}

# base, stored, change, causes
TRANSITIONS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, str]]] = [
    (
        SERVE,
        {},
        {"resource.instanceType": "Standard_NC12s_v3"},
        {"resource.instanceType": FIXED.replace("changed", "changed once set")},
    ),
    (SERVE, {}, {"resource.labelSelector.matchLabels": {"apps": "other"}}, {"resource.labelSelector": FIXED}),
    (SERVE, {}, PARTITION, {"resource.partition": FIXED.replace("be changed", "be added, changed or removed")}),
    (
        SERVE,
        PARTITION,
        {"resource.partition.profile": "2g.20gb"},
        {"resource.partition": FIXED.replace("be changed", "be added, changed or removed")},
    ),
    (
        SERVE,
        PARTITION,
        {"resource.partition": None},
        {"resource.partition": FIXED.replace("be changed", "be added, changed or removed")},
    ),
    (SERVE, {}, {"inference.preset.name": "phi-4"}, {"inference.preset.name": FIXED}),
    (
        SERVE,
        PRIVATE,
        {"inference.preset.presetOptions.image": "other"},
        {"inference.preset.presetOptions.image": FIXED},
    ),
    (
        SERVE,
        {},
        {"inference.preset.accessMode": "private", "inference.preset.presetOptions.image": "i"},
        {"inference.preset.accessMode": FIXED, "inference.preset.presetOptions.image": FIXED},
    ),
    (
        SERVE,
        {},
        {"inference": {"template": {"spec": {}}}},
        {"inference": "preset and template cannot be exchanged later: delete the Workspace and create a new one"},
    ),
    (SERVE, {}, {"inference": None, "tuning": TUNE["tuning"]}, {"inference": EXISTENCE, "tuning": EXISTENCE}),
    (TUNE, {}, {"tuning.method": "lora"}, {"tuning.method": FIXED}),
    (TUNE, {}, {"tuning.input.name": "other"}, {"tuning.input.name": FIXED}),
    (TUNE, {}, {"tuning.preset.name": "phi-4"}, {"tuning.preset.name": FIXED}),
    (CLAIM, {}, {"spec.expireAfter": "1h"}, {"spec": "spec is immutable"}),
]


@pytest.mark.parametrize(
    ("base", "stored", "change", "expected"), TRANSITIONS, ids=[str(index) for index in range(len(TRANSITIONS))]
)
def test_fields_that_nodes_were_created_for_are_immutable(
    base: dict[str, Any], stored: dict[str, Any], change: dict[str, Any], expected: dict[str, str]
) -> None:
    found = causes(*replace(base, stored, change))
    assert {field: text.removeprefix("Invalid value: ") for field, text in found.items()} == expected


@pytest.mark.parametrize(
    ("base", "stored", "change"),
    [
        (SERVE, {"resource.instanceType": None}, {"resource.instanceType": "Standard_NC6s_v3"}),
        (SERVE, {"resource.instanceType": ""}, {"resource.instanceType": "Standard_NC6s_v3"}),
        (SERVE, {}, {"resource.instanceType": ""}),
        (SERVE, {}, {"resource.instanceType": None, "resource.instanceTypes": ["Standard_NC12s_v3"]}),
        (SERVE, {}, {"resource.preferredNodes": ["n"]}),
        (SERVE, {}, {"inference.preset.presetOptions.modelAccessSecret": "rotated"}),
        (SERVE, {}, {"inference.adapters": [ADAPTER], "inference.config": "c"}),
        (SERVE, {"inference": {"template": {"spec": {}}}}, {"inference.template.spec": {"containers": []}}),
        (TUNE, {}, {"tuning.method": "QLORA"}),
        (TUNE, {}, {"tuning.config": "c"}),
        (CLAIM, {}, {"metadata.annotations": {"a": "b"}}),
        (MACHINE, {}, {"spec.kubelet": {"maxPods": 30}}),
    ],
)
def test_the_rest_may_change(base: dict[str, Any], stored: dict[str, Any], change: dict[str, Any]) -> None:
    status, body = replace(base, stored, change)
    assert status == 200, body
