"""Runs every command of docs/getting-started/walkthrough.md, in order, as one user of the real node."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from hack.cluster import Cluster
from test.node.conftest import say
from test.support.codeblocks import CodeBlock, code_blocks
from test.support.node_images import BASE, make_base, smollm2, uv_cache
from test.support.real_node import MODELS, PREFIX, ROOT, Diagnosis, Kubernetes

PAGE = ROOT / "docs" / "getting-started" / "walkthrough.md"
WRITTEN = ("my-controller.yaml", "workspace.yaml")
"""Files that the commands write into the checkout."""
OUTER_MAKE = {"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS"}
"""Variables in which make passes its own arguments on: `make e2e ARGS=-v` must not change `make images`."""
BLOCK_SECONDS = 1200


class Shell:
    """Runs blocks of the page, each in a process of its own, with the variables that the page exports."""

    def __init__(self, cluster: Cluster, variables: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._variables = variables

    def run(self, block: CodeBlock) -> str:
        """Returns the output of a block."""
        # Only the build needs packages from an index; the network of the cluster has no route to one.
        is_build = block.code.startswith(("make images", "make sync"))
        own = {"ARGS": self._variables["BUILD_ARGS"] if is_build else self._variables["PUSH_ARGS"]}
        if not is_build:  # the authority of the cluster's registry, which this machine does not trust
            own["SSL_CERT_FILE"] = str(self._cluster.layout.certificates / "ca.crt")
        environment = {**self._cluster.environment, **self._variables, **own}
        command = ["bash", "-euxo", "pipefail", "-c", block.code]
        # Into a file: a process that a failed block leaves in the background would keep a pipe open.
        with TemporaryFile("w+") as output:
            process = subprocess.Popen(
                command if is_build else self._cluster.command(*command),
                cwd=ROOT,
                env={name: value for name, value in environment.items() if name not in OUTER_MAKE},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(BLOCK_SECONDS)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            output.seek(0)
            text = output.read()
        if code != 0:
            pytest.fail(f"{block}: exit code {code}\n{text[-6000:]}\n{Diagnosis(self._cluster).text()}")
        return text


@pytest.fixture
def shell(cluster: Cluster, helm: str) -> Iterator[Shell]:
    make_base(cluster, say)
    cluster.kubectl("label", "node", cluster.layout.name, "apps-")  # the page begins with a node without it
    path = os.pathsep.join([str(Path(helm).parent), str(ROOT / ".venv" / "bin"), os.environ["PATH"]])
    yield Shell(
        cluster,
        {
            "PREFIX": PREFIX,
            "MODELS": MODELS,
            "NODE": cluster.layout.name,
            "MODEL": str(smollm2(say)),
            "PATH": path,
            "BUILD_ARGS": f"--engine buildah --base-image {BASE} --uv-cache {uv_cache()}",
            "PUSH_ARGS": "--engine buildah --plain-http --no-compression",
        },
    )
    for name in WRITTEN:
        (ROOT / name).unlink(missing_ok=True)
    cluster.kubectl("label", "node", cluster.layout.name, "apps-")


@pytest.mark.timeout(3600)  # with the builds of both images
def test_every_command_of_the_page(shell: Shell, kubernetes: Kubernetes) -> None:
    blocks = [block for block in code_blocks(PAGE) if block.language == "sh" and not block.code.startswith("export")]
    outputs: dict[str, str] = {}
    for block in blocks:
        outputs[block.code] = shell.run(block)
        say(f"walkthrough.md:{block.line}: {block.code.splitlines()[0]}")
    answers = [text for code, text in outputs.items() if "capital of France" in code]
    assert len(answers) == 2
    assert all("Paris" in text for text in answers)
    kinds = "crds,clusterroles,clusterrolebindings,validatingwebhookconfigurations,mutatingwebhookconfigurations"
    left = kubernetes.items(kinds, "-l", "kaito.sh/installation=true")
    assert [item["metadata"]["name"] for item in left] == []
