"""Rules for `tuning`: method, input and output."""

from collections.abc import Iterator
from typing import Final

from kaito_config.addresses import page_problem, url_problem

from kaito.api.violation import Violation
from kaito.api.workspace.kind import Workspace
from kaito.api.workspace.validation.policy import Policy, Rule

METHODS: Final = ("lora", "qlora")


def method_known(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the method is LoRA or QLoRA, in any case."""
    if workspace.tuning and workspace.tuning.method.lower() not in METHODS:
        yield Violation("tuning.method", f"{workspace.tuning.method!r} is not a method: use {' or '.join(METHODS)}")


def input_valid(workspace: Workspace, policy: Policy) -> Iterator[Violation]:
    """Checks that the input has one source, and that the downloader may use its URLs."""
    if workspace.tuning is None:
        return
    source = workspace.tuning.input
    if len(source.kinds) != 1:
        given = " and ".join(source.kinds) or "nothing"
        yield Violation("tuning.input", f"has {given}: set exactly one of urls, volumeSource and image")
    if "emptyDir" in (source.volume_source or {}):
        message = "is empty when the run starts: use a volume with data"
        yield Violation("tuning.input.volumeSource.emptyDir", message, "warning")
    for index, url in enumerate(source.urls):
        if reason := url_problem(url, in_cluster=policy.in_cluster_data_urls) or page_problem(url):
            yield Violation(f"tuning.input.urls[{index}]", reason)


def output_valid(workspace: Workspace) -> Iterator[Violation]:
    """Checks that the output has one destination, with credentials for a push."""
    if workspace.tuning is None:
        return
    output = workspace.tuning.output
    if len(output.kinds) != 1:
        given = " and ".join(output.kinds) or "nothing"
        yield Violation("tuning.output", f"has {given}: set exactly one of image and volumeSource")
    if "emptyDir" in (output.volume_source or {}):
        message = "is deleted with the pod and the adapter: use a volume such as a persistentVolumeClaim"
        yield Violation("tuning.output.volumeSource.emptyDir", message, "warning")
    if output.image and not output.image_push_secret:
        yield Violation(
            "tuning.output.imagePushSecret",
            "is empty: name the Secret (type kubernetes.io/dockerconfigjson) that may push the image",
        )
    if output.image_push_secret and not output.image:
        yield Violation("tuning.output.imagePushSecret", "is set without image: remove it, or set image")


RULES: Final = (
    Rule.always("method-known", method_known),
    Rule("input-valid", input_valid),
    Rule.always("output-valid", output_valid),
)
