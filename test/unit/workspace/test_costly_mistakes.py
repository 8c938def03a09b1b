"""Mistakes that would show only on a node that was bought: each is refused before, with the field and the remedy."""

from typing import Any

import pytest

from kaito.api import Workspace, conditions, labels
from kaito.prices.book import PriceBook
from kaito.workspace.plan_warnings import plan_warnings
from kaito.workspace.preflight import Finding, run_checks, validate_workspace
from kaito.workspace.preflight.offline import ManifestReader
from kaito.workspace.preview import identified
from kaito.workspace.settings import WorkspaceSettings

SETTINGS = WorkspaceSettings(region="eastus")
A100 = "Standard_NC24ads_A100_v4"
V100 = "Standard_NC6s_v3"


def workspace(
    resource: dict[str, Any] | None = None,
    preset: dict[str, Any] | None = None,
    **parts: Any,
) -> Workspace:
    document: dict[str, Any] = {
        "metadata": {"name": "mistake", "namespace": "team"},
        "resource": {"instanceType": A100, "labelSelector": {"matchLabels": {"apps": "x"}}} | (resource or {}),
        "inference": {"preset": {"name": "phi-4-mini-instruct"} | (preset or {})},
    }
    for key, value in parts.items():
        document[key] = (document.get(key) or {}) | value
    return Workspace.model_validate(document)


def tuning(url: str) -> Workspace:
    document = {
        "metadata": {"name": "mistake", "namespace": "team"},
        "resource": {"instanceType": A100, "labelSelector": {"matchLabels": {"apps": "x"}}},
        "tuning": {
            "preset": {"name": "phi-3-mini-4k-instruct"},
            "method": "qlora",
            "input": {"urls": [url]},
            "output": {"volumeSource": {"persistentVolumeClaim": {"claimName": "results"}}},
        },
    }
    return Workspace.model_validate(document)


def errors_of(given: Workspace) -> list[str]:
    return [str(each) for each in validate_workspace(given, None, SETTINGS) if each.severity == "error"]


async def findings_of(given: Workspace) -> list[Finding]:
    return list((await run_checks(identified(given), SETTINGS, ManifestReader())).errors)


def limits(**amounts: str) -> Workspace:
    return workspace(
        preset={"podOptions": {"resources": {"limits": {k.replace("_", "-"): v for k, v in amounts.items()}}}}
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            tuning("https://huggingface.co/datasets/philschmid/dolly"),
            "tuning.input.urls[0]: 'https://huggingface.co/datasets/philschmid/dolly' is a page and not a file: use "
            "the address of a file, such as https://huggingface.co/datasets/philschmid/dolly/resolve/main/FILE",
            id="page of a dataset",
        ),
        pytest.param(
            tuning("https://huggingface.co/datasets/a/b/blob/main/data/x.parquet"),
            "use https://huggingface.co/datasets/a/b/resolve/main/data/x.parquet",
            id="page of a file",
        ),
        pytest.param(
            tuning("https://huggingface.co/datasets/a/b/tree/main/data"), "/resolve/main/FILE", id="page of a directory"
        ),
        pytest.param(
            tuning("https://github.com/a/b/blob/main/x.jsonl"),
            "use https://raw.githubusercontent.com/a/b/main/x.jsonl",
            id="page of a file on GitHub",
        ),
        pytest.param(
            workspace(
                inference={"adapters": [{"source": {"name": "phi-4-mini-instruct", "image": "r.example.com/a:1"}}]}
            ),
            "inference.adapters[0].source.name: 'phi-4-mini-instruct' is the name of the model in requests: use "
            "another name",
            id="adapter with the name of the model",
        ),
        pytest.param(
            limits(memory="64"), "limits[memory]: is 64 bytes: write a unit, for example 64Gi", id="limit without unit"
        ),
        pytest.param(
            limits(memory="512Mi"),
            "limits[memory]: is 512Mi, and a server needs at least 1Gi to start: raise it, or remove it",
            id="limit below what a server needs",
        ),
        pytest.param(
            workspace(preset={"podOptions": {"resources": {"requests": {"memory": "64"}}}}),
            "requests[memory]: is 64 bytes: write a unit, for example 64Gi",
            id="request without unit",
        ),
        pytest.param(
            workspace(resource={"zones": ["westeurope-1"]}),
            "resource.zones[0]: 'westeurope-1' is not in eastus, where nodes are created: use 1, or eastus-1",
            id="zone of another region",
        ),
        pytest.param(
            workspace(resource={"labelSelector": {"matchLabels": {"apps": "has space"}}}),
            "resource.labelSelector.matchLabels[apps]: 'has space' is not the value of a label",
            id="value of a label",
        ),
        pytest.param(
            workspace(resource={"labelSelector": {"matchLabels": {"my app": "x"}}}),
            "resource.labelSelector.matchLabels[my app]: is not the key of a label",
            id="key of a label",
        ),
        pytest.param(
            workspace(
                resource={"instanceType": V100},
                spec={"autoscaling": {"maxReplicas": 3, "target": {"queueSeconds": 5}}},
            ),
            "spec.autoscaling.target.queueSeconds: is not reported by the transformers runtime, on which "
            "phi-4-mini-instruct runs here, so that no copy would be removed: use target.requests",
            id="load that the runtime does not report",
        ),
    ],
)
def test_it_is_refused_at_admission(given: Workspace, message: str) -> None:
    errors = errors_of(given)
    assert any(message in error for error in errors), errors


@pytest.mark.parametrize(
    "given",
    [
        tuning("https://huggingface.co/datasets/a/b/resolve/main/x.parquet?download=true"),
        tuning("https://huggingface.co/api/datasets/a/b/parquet/default/train/0.parquet"),
        tuning("https://raw.githubusercontent.com/a/b/main/x.jsonl"),
        limits(memory="2Gi"),
        workspace(resource={"zones": ["eastus-1", "2"]}),
        workspace(spec={"autoscaling": {"maxReplicas": 3, "target": {"queueSeconds": 5}}}),
        workspace(inference={"adapters": [{"source": {"name": "phi-4", "image": "r.example.com/a:1"}}]}),
    ],
)
def test_its_correct_form_is_admitted(given: Workspace) -> None:
    assert errors_of(given) == []


async def test_a_limit_of_the_disk_must_hold_the_weights() -> None:
    (found,) = await findings_of(limits(ephemeral_storage="1Gi"))
    assert str(found) == (
        "inference.preset.podOptions.resources.limits[ephemeral-storage]: is 1Gi, and the pod stores 7.2 GiB of "
        "weights, so that it would be evicted: raise it, or remove it"
    )
    assert await findings_of(limits(ephemeral_storage="20Gi")) == []


async def test_a_limit_of_the_disk_may_be_small_if_the_weights_are_in_a_cache() -> None:
    cached = workspace(
        preset={
            "podOptions": {"resources": {"limits": {"ephemeral-storage": "1Gi"}}},
            "presetOptions": {"weights": {"source": "NodeCache", "cacheClaim": "weights"}},
        }
    )
    assert await findings_of(cached) == []


@pytest.mark.parametrize(
    ("zones", "selected", "words"),
    [
        ([], "eastus-1", "new nodes can be in any zone: set resource.zones to eastus-1 instead"),
        (["1", "2"], "eastus-1", "new nodes can be in 1, 2: set resource.zones to eastus-1 instead"),
        (["1"], "eastus-1", ""),
        (["eastus-1"], "eastus-1", ""),
    ],
)
async def test_a_selected_zone_must_be_that_of_the_new_nodes(zones: list[str], selected: str, words: str) -> None:
    given = workspace(resource={"zones": zones}, preset={"podOptions": {"nodeSelector": {labels.ZONE: selected}}})
    found = await findings_of(given)
    assert [str(each) for each in found] == (
        [f"inference.preset.podOptions.nodeSelector[{labels.ZONE}]: is {selected!r}, but {words}"] if words else []
    )


async def test_a_selected_region_must_be_that_of_the_new_nodes() -> None:
    given = workspace(preset={"podOptions": {"nodeSelector": {labels.REGION: "westus"}}})
    (found,) = await findings_of(given)
    assert found.message == "is 'westus', but the Workspace's nodes have 'eastus': remove it"


async def test_a_model_that_the_controller_will_read_is_not_an_error() -> None:
    given = workspace(preset={"name": "HuggingFaceTB/SmolLM3-3B", "presetOptions": {"modelFacts": "facts"}})
    assert await plan_warnings(given, None, SETTINGS, PriceBook()) == []


async def test_facts_that_are_not_among_the_files_are_named() -> None:
    given = workspace(preset={"name": "HuggingFaceTB/SmolLM3-3B", "presetOptions": {"modelFacts": "facts"}})
    (found,) = await findings_of(given)
    assert found.reason == conditions.MODEL_PENDING
    assert str(found) == (
        "inference.preset.presetOptions.modelFacts: ConfigMap 'facts' with the facts of HuggingFaceTB/SmolLM3-3B is "
        "not among the files: add it, or compare with the cluster"
    )


def test_a_label_with_the_key_of_an_annotation_is_a_warning() -> None:
    given = workspace().with_metadata(labels={labels.RUNTIME: "transformers"})
    (found,) = validate_workspace(given, None, SETTINGS)
    assert found.severity == "warning"
    assert str(found) == (
        "metadata.labels[kaito.sh/runtime]: is an annotation and has no effect as a label: move it to "
        "metadata.annotations"
    )
