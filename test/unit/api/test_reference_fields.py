"""Invalid names of images, Secrets and ConfigMaps are rejected at their field."""

from typing import Any

import pytest

from kaito.api import Workspace
from kaito.api.workspace.validation import Policy, validate
from test.unit.api.crd_server import SERVE, TUNE, VOLUME, changed

ADAPTERS = "inference.adapters"
BAD = "Bad Name"


@pytest.mark.parametrize(
    ("base", "change", "field"),
    [
        (
            SERVE,
            {"inference.preset": {"name": "p", "accessMode": "private", "presetOptions": {"image": BAD}}},
            "inference.preset.presetOptions.image",
        ),
        (SERVE, {ADAPTERS: [{"source": {"name": "a", "image": BAD}}]}, f"{ADAPTERS}[0].source.image"),
        (
            SERVE,
            {ADAPTERS: [{"source": {"name": "a", "volumeSource": {"image": {"reference": BAD}}}}]},
            f"{ADAPTERS}[0].source.volumeSource.image.reference",
        ),
        *[
            (
                SERVE,
                {"inference": {"template": {"spec": {"containers": [{"name": "a"}], **spec}}}},
                f"inference.template.spec.{field}",
            )
            for spec, field in (
                ({"containers": [{"name": "a", "image": BAD}]}, "containers[0].image"),
                (
                    {"initContainers": [{"name": "a", "image": "a/b:1"}, {"name": "b", "image": BAD}]},
                    "initContainers[1].image",
                ),
                ({"volumes": [{"name": "v", "image": {"reference": BAD}}]}, "volumes[0].image.reference"),
            )
        ],
        (TUNE, {"tuning.input": {"image": BAD}}, "tuning.input.image"),
        (
            TUNE,
            {"tuning.input": {"volumeSource": {"image": {"reference": BAD}}}},
            "tuning.input.volumeSource.image.reference",
        ),
        (TUNE, {"tuning.output.image": BAD}, "tuning.output.image"),
        (TUNE, {"tuning.output.image": "a/b@sha256:" + "0" * 64}, "tuning.output.image"),
        (
            SERVE,
            {"inference.preset.presetOptions.imagePullSecrets": ["good", BAD]},
            "inference.preset.presetOptions.imagePullSecrets[1]",
        ),
        (
            SERVE,
            {"inference.preset.presetOptions.modelAccessSecret": BAD},
            "inference.preset.presetOptions.modelAccessSecret",
        ),
        (TUNE, {"tuning.preset.presetOptions.modelAccessSecret": BAD}, "tuning.preset.presetOptions.modelAccessSecret"),
        (
            SERVE,
            {ADAPTERS: [{"source": {"name": "a", "image": "a/b:1", "imagePullSecrets": [BAD]}}]},
            f"{ADAPTERS}[0].source.imagePullSecrets[0]",
        ),
        (SERVE, {"inference.config": BAD}, "inference.config"),
        (TUNE, {"tuning.config": BAD}, "tuning.config"),
        (TUNE, {"tuning.input": {"image": "a/b:1", "imagePullSecrets": [BAD]}}, "tuning.input.imagePullSecrets[0]"),
        (TUNE, {"tuning.output.imagePushSecret": BAD}, "tuning.output.imagePushSecret"),
        (TUNE, {"tuning.input.imagePullSecrets": ["good"]}, "tuning.input.imagePullSecrets"),
        (
            SERVE,
            {ADAPTERS: [{"source": {"name": "a", "volumeSource": VOLUME, "imagePullSecrets": ["good"]}}]},
            f"{ADAPTERS}[0].source.imagePullSecrets",
        ),
    ],
)
def test_an_invalid_name_is_rejected_at_its_field(base: dict[str, Any], change: dict[str, Any], field: str) -> None:
    workspace = Workspace.model_validate(changed(base, change))
    assert [v.field for v in validate(workspace, policy=Policy()) if v.severity == "error"] == [field]


def test_an_image_with_a_digest_may_be_read() -> None:
    workspace = Workspace.model_validate(changed(TUNE, {"tuning.input": {"image": "a/b@sha256:" + "0" * 64}}))
    assert validate(workspace, policy=Policy()) == []
