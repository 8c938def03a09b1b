"""Images of Kaito's workloads become commands of the presets environment."""

from pathlib import Path

import pytest

from kaito.local.kubelet.images import Images, NoLocalProgram, Place
from kaito.runtime.kinds import Container

PRESETS = Path("/presets")
PLACE = Place("127.64.0.7", Path("/pods/a"), {"/mnt/config": Path("/pods/a/volumes/config"), "/mnt": Path("/v/mnt")})


@pytest.fixture
def images() -> Images:
    return Images(PRESETS, Path("/models/tiny"), base_environment={"PATH": "/usr/bin"})


def launched(images: Images, *command: str, image: str = "registry.example/kaito-serving:1") -> tuple[str, ...]:
    return images.launch(Container(name="c", image=image, command=list(command)), PLACE, {}).argv


def test_the_server_runs_the_local_model_at_the_pods_own_address(images: Images) -> None:
    command = ["python3", "/workspace/tfs/inference_api.py", "--pipeline=text-generation", "--port=5000"]
    command += ["--pretrained_model_name_or_path=microsoft/Phi-3-mini-4k-instruct", "--revision=abc"]
    assert launched(images, *command) == (
        "/presets/bin/kaito-inference",
        "--pipeline=text-generation",
        "--port=5000",
        "--pretrained_model_name_or_path=/models/tiny",
        "--host=127.64.0.7",
    )


def test_a_vllm_command_is_served_with_the_flags_that_the_local_program_has(images: Images) -> None:
    command = ["python3", "/workspace/vllm/inference_api.py", "--gpu-memory-utilization=0.84", "--trust-remote-code"]
    command += ["--model=/workspace/vllm/weights", "--port=5000", "--served-model-name=phi-3"]
    assert launched(images, *command) == (
        "/presets/bin/kaito-inference",
        "--pretrained_model_name_or_path=/models/tiny",
        "--port=5000",
        "--served_model_name=phi-3",
        "--host=127.64.0.7",
    )


def test_a_tuning_job_takes_its_own_flags_and_the_local_model(images: Images) -> None:
    command = ["python3", "/workspace/tfs/fine_tuning.py", "--config", "/mnt/config/training_config.yaml", "--model=/w"]
    assert launched(images, *command) == (
        "/presets/bin/kaito-tuning",
        "--config",
        "/pods/a/volumes/config/training_config.yaml",
        "--model=/models/tiny",
    )


def test_a_tuning_job_listens_at_the_pods_own_address(images: Images) -> None:
    """08-local-tuning-beside-inference: it bound every address, and inference servers hold the port of some."""
    container = Container(name="c", image="registry.example/kaito-serving:1", command=["/workspace/tfs/fine_tuning.py"])
    assert images.launch(container, PLACE, {}).env["KAITO_METRICS_HOST"] == PLACE.ip


def test_mount_paths_become_folders_and_longer_paths_win(images: Images) -> None:
    argv = launched(images, "cat", "/mnt/config/inference_config.yaml", "/mnt/data", "/mntx", image="local/tools")
    assert argv == ("cat", "/pods/a/volumes/config/inference_config.yaml", "/v/mnt/data", "/mntx")


def test_folders_below_the_path_of_another_mount_are_not_replaced_again() -> None:
    mounts = {"/tmp": Path("/tmp/pod/tmp"), "/workspace/weights": Path("/tmp/pod/weights")}
    images = Images(Path("/tmp/presets"), Path("/tmp/models/tiny"), base_environment={})
    command = ["python3", "/workspace/tfs/fine_tuning.py", "--model=/w", "--data-dir=/workspace/weights", "--x=/tmp/a"]
    container = Container(name="c", image="registry.example/kaito-serving:1", command=command)
    assert images.launch(container, Place("127.64.0.7", Path("/tmp/pod"), mounts), {}).argv == (
        "/tmp/presets/bin/kaito-tuning",
        "--model=/tmp/models/tiny",
        "--data-dir=/tmp/pod/weights",
        "--x=/tmp/pod/tmp/a",
    )


def test_pulled_weights_are_served_instead_of_the_tiny_model(images: Images, tmp_path: Path) -> None:
    place = Place("127.64.0.7", Path("/pods/a"), {"/workspace/weights": tmp_path})
    serve = ["python3", "/workspace/vllm/inference_api.py", "--model=/workspace/weights"]
    pull = ["python3", "/workspace/oci/pull_model.py", "r.example/a:1", "/workspace/weights", "--progress-port=5000"]

    def argv(command: list[str]) -> tuple[str, ...]:
        return images.launch(Container(name="c", image="kaito/kaito-vllm:1", command=command), place, {}).argv

    assert argv(pull) == ("/presets/bin/kaito-pull-model", "r.example/a:1", str(tmp_path))
    assert "--pretrained_model_name_or_path=/models/tiny" in argv(serve)
    (tmp_path / "config.json").write_text("{}")
    assert f"--pretrained_model_name_or_path={tmp_path}" in argv(serve)


def test_environment_values_are_localized_and_keep_the_presets_first_on_the_path(images: Images) -> None:
    container = Container(name="c", image="local/x", command=["true"])
    env = images.launch(container, PLACE, {"DATA": "/mnt/config/data"}).env
    assert env["DATA"] == "/pods/a/volumes/config/data"
    assert env["PATH"].startswith("/presets/bin:")


def test_an_image_without_local_program_is_refused_by_name(images: Images) -> None:
    with pytest.raises(NoLocalProgram, match=r"registry\.example/other"):
        launched(images, "serve", image="registry.example/other:2")
