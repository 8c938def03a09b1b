"""Images of Kaito's workloads become commands of the presets environment."""

from pathlib import Path

import pytest

from kaito.local.kubelet.images import Images, NoStandIn, Place
from kaito.runtime.kinds.pod import Container

PRESETS = Path("/presets")
PLACE = Place("127.64.0.7", Path("/pods/a"), {"/mnt/config": Path("/pods/a/volumes/config"), "/mnt": Path("/v/mnt")})


@pytest.fixture
def images() -> Images:
    return Images(PRESETS, Path("/models/tiny"), base_environment={"PATH": "/usr/bin"})


def launched(images: Images, *command: str, image: str = "registry.example/kaito-base:1") -> tuple[str, ...]:
    return images.launch(Container(name="c", image=image, command=list(command)), PLACE, {}).argv


def test_a_shell_line_serves_the_local_model_at_the_pods_address(images: Images) -> None:
    line = (
        "accelerate launch --num_processes=1 --gpu_ids=all /workspace/tfs/inference_api.py --pipeline=text-generation "
        "--pretrained_model_name_or_path=microsoft/Phi-3-mini-4k-instruct --revision=abc --port=5000"
    )
    assert launched(images, "/bin/sh", "-c", line) == (
        "/bin/sh",
        "-c",
        (
            "/presets/bin/kaito-inference --pipeline=text-generation "
            "--pretrained_model_name_or_path=/models/tiny --port=5000 --host=127.64.0.7"
        ),
    )


def test_mount_paths_become_folders_and_longer_paths_win(images: Images) -> None:
    argv = launched(images, "cat", "/mnt/config/inference_config.yaml", "/mnt/data", "/mntx", image="local/tools")
    assert argv == ("cat", "/pods/a/volumes/config/inference_config.yaml", "/v/mnt/data", "/mntx")


def test_environment_values_are_localised_and_keep_the_presets_first_on_the_path(images: Images) -> None:
    container = Container(name="c", image="local/x", command=["true"])
    env = images.launch(container, PLACE, {"DATA": "/mnt/config/data"}).env
    assert env["DATA"] == "/pods/a/volumes/config/data"
    assert env["PATH"].startswith("/presets/bin:")


def test_an_image_without_stand_in_is_refused_by_name(images: Images) -> None:
    with pytest.raises(NoStandIn, match=r"registry\.example/other"):
        launched(images, "serve", image="registry.example/other:2")
