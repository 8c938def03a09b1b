"""The overlays of `config/`: every patch and image refers to something that the installation contains."""

from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG = Path(__file__).resolve().parents[3] / "config"
OVERLAYS = [CONFIG / "overlays" / name for name in ("aks", "existing-nodes", "karpenter", "karpenter-node-pools")]


def installation() -> list[dict[str, Any]]:
    folders = ("crd", "rbac", "manager", "webhook")
    paths = [path for folder in folders for path in sorted((CONFIG / folder).glob("*.yaml"))]
    return [d for path in paths if path.name != "kustomization.yaml" for d in yaml.safe_load_all(path.read_text())]


def containers(documents: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (document["metadata"]["name"], container["name"]): container
        for document in documents
        if document["kind"] == "Deployment"
        for container in document["spec"]["template"]["spec"]["containers"]
    }


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_it_refers_to_objects_containers_and_images_of_the_installation(overlay: Path) -> None:
    kustomization: dict[str, Any] = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    documents = installation()
    known = {(document["kind"], document["metadata"]["name"]) for document in documents}
    base, *own = [(overlay / path).resolve() for path in kustomization["resources"]]
    assert base == CONFIG / "default"
    assert all(path.is_file() for path in own)
    images = {container["image"].rpartition(":")[0] for container in containers(documents).values()}
    assert {image["name"] for image in kustomization["images"]} <= images
    for entry in kustomization["patches"]:
        patch: dict[str, Any] = yaml.safe_load(entry["patch"])
        if "target" in entry:
            assert patch["$patch"] == "delete"
            assert set(entry["target"]["name"].split("|")) <= {name for _, name in known}
            continue
        assert (patch["kind"], patch["metadata"]["name"]) in known
        for place in containers([patch]) if patch["kind"] == "Deployment" else ():
            assert place in containers(documents)


def test_every_value_to_set_is_marked() -> None:
    marked = [line for overlay in OVERLAYS for line in (overlay / "kustomization.yaml").read_text().splitlines()
              if "# set" in line]  # fmt: skip
    placeholders = ("registry", "0000", "my-", "eastus")
    assert len(marked) > 8
    for overlay in OVERLAYS:
        for line in (overlay / "kustomization.yaml").read_text().splitlines():
            if any(word in line for word in placeholders) and ":" in line and not line.lstrip().startswith("#"):
                assert "# set" in line or line.lstrip().startswith("- patch"), line
