"""References of images, URLs of data sets, and limits of the configuration files: one value for each rule."""

import pytest
from kaito_config import ConfigError, InferenceConfigFile, TrainingConfig, parse_inference, parse_training
from kaito_config.addresses import page_problem, url_problem
from kaito_config.document import Problem
from kaito_config.image_references import ImageReference, ImageReferenceError, parse_image_reference
from kaito_config.schema import MAX_PROBLEMS

OWN_FLAG = "cannot be set: the controller sets the flags of the wrapper"
NO_FLAG = "is not the name of a flag: write it without leading dashes, for example max-model-len"
OF_DATASET = "such as https://hf.co/datasets/o/d/resolve/main/FILE"
SHA256, SHA512 = "sha256:" + "a1" * 32, "sha512:" + "b2" * 64


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("phi", "docker.io", "library/phi", "latest", None),
        ("me/phi:1", "docker.io", "me/phi", "1", None),
        ("docker.io/phi", "docker.io", "library/phi", "latest", None),
        ("docker.io/me/phi", "docker.io", "me/phi", "latest", None),
        ("r.io/phi", "r.io", "phi", "latest", None),
        ("r.io/a/b/phi:v1.2-x_y", "r.io", "a/b/phi", "v1.2-x_y", None),
        ("r:5000/phi", "r:5000", "phi", "latest", None),
        ("localhost/phi", "localhost", "phi", "latest", None),
        ("Registry/phi", "Registry", "phi", "latest", None),
        ("[::1]:5000/phi:2", "[::1]:5000", "phi", "2", None),
        (f"r.io/phi@{SHA256}", "r.io", "phi", "latest", SHA256),
        (f"r.io/phi:1@{SHA512}", "r.io", "phi", "1", SHA512),
        ("r.io:65535/phi", "r.io:65535", "phi", "latest", None),
        ("r.io/a__b-c.d/e", "r.io", "a__b-c.d/e", "latest", None),
    ],
)
def test_a_reference_is_resolved_as_docker_does(
    text: str, registry: str, repository: str, tag: str, digest: str | None
) -> None:
    assert parse_image_reference(text) == ImageReference(registry, repository, tag, digest)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is not an image reference: write registry/repository:tag without spaces"),
        ("r.io/a b", "'r.io/a b' is not an image reference: write registry/repository:tag without spaces"),
        ("r.io/phi:", "'r.io/phi:' is not an image reference: '' is not a tag (letters, digits, '_', '.', '-')"),
        ("r.io/phi:-1", "'r.io/phi:-1' is not an image reference: '-1' is not a tag (letters, digits, '_', '.', '-')"),
        ("r.io:65536/phi", "'r.io:65536/phi' is not an image reference: 'r.io:65536' is not a registry host"),
        ("r.io:0/phi", "'r.io:0/phi' is not an image reference: 'r.io:0' is not a registry host"),
        ("-r.io/phi", "'-r.io/phi' is not an image reference: '-r.io' is not a registry host"),
        (
            "r.io/Phi",
            (
                "'r.io/Phi' is not an image reference, repositories are in lower case: write registry/repository:tag, "
                "the repository with lower-case letters, digits, '.', '_', '-' and '/'"
            ),
        ),
        (
            "r.io/Phi+",
            (
                "'r.io/Phi+' is not an image reference: write registry/repository:tag, the repository with lower-case "
                "letters, digits, '.', '_', '-' and '/'"
            ),
        ),
        (
            "r.io/phi@sha256:ab",
            (
                "'r.io/phi@sha256:ab' is not an image reference: the digest 'sha256:ab' is not sha256: with 64 "
                "hexadecimal digits"
            ),
        ),
        (f"r.io/{'a' * 251}", "the repository has 256 characters, at most 255 are possible"),
    ],
)
def test_what_is_not_a_reference_is_refused_with_its_part(text: str, problem: str) -> None:
    with pytest.raises(ImageReferenceError) as caught:
        parse_image_reference(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    "digest", ["sha256:" + "g1" * 32, "sha256:" + "A1" * 32, "sha512:" + "a1" * 32, "md5:" + "a1" * 16, ""]
)
def test_a_digest_has_a_known_algorithm_and_its_length(digest: str) -> None:
    with pytest.raises(ImageReferenceError, match="is not sha256: with 64 hexadecimal digits"):
        parse_image_reference(f"r.io/phi@{digest}")


def test_the_longest_name_is_accepted() -> None:
    assert parse_image_reference(f"r.io/{'a' * 250}").repository == "a" * 250


def test_a_reference_is_written_with_its_digest_or_its_tag() -> None:
    tagged, pinned = parse_image_reference("r.io/phi:1"), parse_image_reference(f"r.io/phi:1@{SHA256}")
    assert (str(tagged), tagged.version) == ("r.io/phi:1", "1")
    assert (str(pinned), pinned.version) == (f"r.io/phi@{SHA256}", SHA256)


@pytest.mark.parametrize(
    ("registry", "loopback", "host"),
    [
        ("localhost", True, "localhost"),
        ("localhost:5000", True, "localhost:5000"),
        ("127.0.0.1:5000", True, "127.0.0.1:5000"),
        ("[::1]:5000", True, "[::1]:5000"),
        ("r.io", False, "r.io"),
        ("localhost.example", False, "localhost.example"),
        ("docker.io", False, "registry-1.docker.io"),
    ],
)
def test_a_registry_on_this_machine_and_the_host_of_its_api(registry: str, loopback: bool, host: str) -> None:
    reference = ImageReference(registry, "phi", "1")
    assert (reference.is_loopback, reference.api_host) == (loopback, host)


@pytest.mark.parametrize(
    ("reference", "key", "length"),
    [
        ("r.io/a/phi", "r.io", 4),
        ("r.io/a/phi", "https://r.io/", 4),
        ("r.io/a/phi", "http://r.io", 4),
        ("r.io/a/phi", "https://r.io/v1/", 4),
        ("r.io/a/phi", "r.io/v2", 4),
        ("r.io/a/phi", "r.io/a", 5),
        ("r.io/a/phi", "r.io/a/phi", 9),
        ("r.io/a/phi", "r.io/a/ph", 0),
        ("r.io/a/phi", "r.io/b", 0),
        ("r.io/a/phi", "s.io", 0),
        ("r.io/a/phi", "docker.io", 0),
        ("me/phi", "https://index.docker.io/v1/", 15),
        ("me/phi", "docker.io", 9),
        ("me/phi", "registry-1.docker.io", 20),
        ("me/phi", "r.io", 0),
    ],
)
def test_an_entry_of_docker_matches_by_registry_and_path(reference: str, key: str, length: int) -> None:
    assert parse_image_reference(reference).match_credentials(key) == length


PLACE = "points inside the cluster or the cloud: use a public address, not the node or its metadata"
INSIDE = (
    "points inside the cluster or the cloud: use a public address or tuning.input.volumeSource, or start the "
    "controller with --allow-in-cluster-data-urls"
)
ABSOLUTE = "is not an absolute http or https URL: begin with https:// and a host name"


@pytest.mark.parametrize(
    ("url", "outside", "in_cluster"),
    [
        ("https://example.com/a", None, None),
        ("HTTPS://Example.COM./a", None, None),
        ("http://8.8.8.8:80/a", None, None),
        ("https://[2606:4700::1]/a", None, None),
        ("https://bücher.example.com/a", None, None),
        ("https://[::1/a", "is not a URL: give an absolute http or https address", ...),
        ("https://example.com:x/a", "is not a URL: give an absolute http or https address", ...),
        ("ftp://example.com/a", ABSOLUTE, ...),
        ("example.com/a", ABSOLUTE, ...),
        ("https:///a", ABSOLUTE, ...),
        ("https://example.com/a b", "contains white space: write it as %20, or remove it", ...),
        ("https://example.com/a\x7f", "contains white space: write it as %20, or remove it", ...),
        ("https://-a.example.com/", "is not a URL: '-a.example.com' is not the name of a host", ...),
        ("https://a..example.com/", "is not a URL: 'a..example.com' is not the name of a host", ...),
        *((f"http://{host}/", PLACE, ...) for host in (
            "localhost", "localhost6", "a.localhost", "metadata.google.internal", "127.0.0.1", "127.1", "0x7f.1",
            "2130706433", "0.0.0.0", "169.254.169.254", "168.63.129.16", "100.100.100.200", "[::1]", "[fd00:ec2::254]",
            "[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "224.0.0.1", "[fe80::1]", "240.0.0.1",
        )),
        *((f"http://{host}/", INSIDE, None) for host in (
            "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "[fd00::1]", "[::ffff:10.0.0.1]", "minio",
            "minio.data.svc", "minio.data.svc.cluster.local", "a.internal", "a.home.arpa", "a.lan", "minio.default",
            "minio.my-data", "a.corp", "a.home", "a.intranet", "a.invalid", "a.localdomain", "a.private", "a.test",
        )),
    ],
)  # fmt: skip
def test_a_url_is_public_or_refused(url: str, outside: str | None, in_cluster: object) -> None:
    """`...`: the URL is refused with the same words where addresses in the cluster are allowed."""
    assert url_problem(url) == (f"{url!r} {outside}" if outside else None)
    expected = outside if in_cluster is ... else in_cluster
    assert url_problem(url, in_cluster=True) == (f"{url!r} {expected}" if expected else None)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_inference(text)
    return str(caught.value).splitlines()


def test_a_date_that_does_not_exist_is_not_yaml() -> None:
    (found,) = problems("vllm: {seed: 2024-13-45}")
    assert found == "not YAML: month must be in 1..12"


def test_of_many_problems_the_first_are_listed_and_the_others_counted() -> None:
    found = problems("\n".join(f"key{number}: 1" for number in range(MAX_PROBLEMS + 3)))
    assert found[-1].strip(" ;").endswith("and 3 more")


def test_merged_keys_are_flags_at_their_place() -> None:
    parsed = parse_inference("vllm:\n  <<: [{max-model-len: 8k}, {seed: 2}]\n  max-num-seqs: 4")
    assert parsed.vllm == {"max-model-len": "8k", "seed": 2, "max-num-seqs": 4}
    (found,) = problems("vllm:\n  <<: {max-modl-len: 8k}\n  seed: 1")
    assert found == "vllm.max-modl-len: vLLM has no such flag, did you mean max-model-len? (line 2, column 8)"


@pytest.mark.parametrize(("length", "shown"), [(58, "'" + "x" * 58 + "'"), (59, "'" + "x" * 56 + "...")])
def test_a_long_value_is_shortened_to_sixty_characters(length: int, shown: str) -> None:
    (found,) = problems(f"transformers: {{max-batch-size: {'x' * length}}}")
    assert f", found {shown} (line 1" in found


def test_a_flag_of_the_server_in_two_spellings_is_refused_with_the_section() -> None:
    (found,) = problems("transformers: {max-batch-size: 1, max_batch_size: 2}")
    assert found == "transformers: sets a flag twice, with dashes and with underscores (line 1, column 1)"


@pytest.mark.parametrize("text", ["vllm: {tensor-parallel-size: 1}", "vllm: {tensor-parallel-size: 1024}"])
def test_the_least_and_the_most_ranks_are_accepted(text: str) -> None:
    parse_inference(text)


@pytest.mark.parametrize(
    "text", ["vllm: {max-model-len: 1}", "vllm: {max-model-len: 1k}", "vllm: {max-model-len: auto}"]
)
def test_a_context_length_of_one_token_is_accepted(text: str) -> None:
    parse_inference(text)


def test_parts_of_a_nested_flag_are_flags_of_their_own() -> None:
    parse_inference("vllm: {compilation-config.level: 3, compilation-config.backend: x}")
    (found,) = problems("vllm: {compilation-config.level: 3, compilation_config.level: 2}")
    assert "is the same flag as compilation-config.level: remove one" in found


@pytest.mark.parametrize(("section", "key"), [("TrainingArguments", "output_dir"), ("DatasetConfig", "dataset_path")])
def test_a_path_outside_the_directory_is_refused_with_its_key(section: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_training(f"training_config: {{{section}: {{{key}: ../x}}}}", TrainingConfig)
    message = f"training_config.{section}.{key}: '../x' leaves the directory of the run: name a path below it"
    assert message in str(caught.value)


DEFAULTS: dict[str, dict[str, object]] = {
    "DataCollator": {"mlm": False},
    "DatasetConfig": {"shuffle_dataset": True, "shuffle_seed": 42, "train_test_split": 1.0},
    "LoraConfig": {
        "alpha_pattern": {},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "r": 8,
        "rank_pattern": {},
        "use_dora": False,
        "use_rslora": False,
    },
    "ModelConfig": {
        "device_map": "auto",
        "force_download": False,
        "trust_remote_code": False,
    },
    "QuantizationConfig": {
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "llm_int8_threshold": 6.0,
        "load_in_8bit": False,
        "quant_method": "bitsandbytes",
    },
    "TrainingArguments": {
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": True,
        "learning_rate": 0.0002,
        "logging_steps": 1,
        "lr_scheduler_type": "linear",
        "max_grad_norm": 1.0,
        "max_length": 1024,
        "max_steps": -1,
        "num_train_epochs": 3.0,
        "optim": "adamw_torch",
        "per_device_eval_batch_size": 1,
        "per_device_train_batch_size": 1,
        "save_steps": 100,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "seed": 42,
        "warmup_steps": 0,
        "weight_decay": 0.0,
    },
}

UNSET = {
    "DataCollator": ["pad_to_multiple_of"],
    "DatasetConfig": [
        "apply_chat_template",
        "context_column",
        "dataset_extension",
        "dataset_path",
        "instruction_column",
        "messages_column",
        "response_column",
    ],
    "LoraConfig": ["layers_pattern", "layers_to_transform", "modules_to_save", "target_modules"],
    "ModelConfig": [
        "cache_dir",
        "chat_template",
        "local_files_only",
        "pretrained_model_name_or_path",
        "revision",
        "torch_dtype",
    ],
    "QuantizationConfig": ["llm_int8_skip_modules", "load_in_4bit"],
    "TrainingArguments": ["bf16", "fp16", "output_dir", "use_cpu"],
}


def test_every_key_of_a_training_configuration_has_its_default() -> None:
    found = TrainingConfig().model_dump()
    assert {
        section: {key: value for key, value in keys.items() if value is not None} for section, keys in found.items()
    } == DEFAULTS
    assert {
        section: sorted(key for key, value in keys.items() if value is None) for section, keys in found.items()
    } == UNSET


@pytest.mark.parametrize(
    ("key", "value", "path", "message"),
    [
        ("tensor-parallel-size", 0, "vllm.tensor-parallel-size", "must be an integer from 1 to 1024, found 0"),
        ("kaito-max-probe-steps", 1, "vllm.kaito-max-probe-steps", OWN_FLAG),
        ("", 1, "vllm", NO_FLAG),
    ],
)
def test_flags_that_cannot_be_sized_are_refused_with_their_path(key: str, value: int, path: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        InferenceConfigFile(vllm={key: value}).engine()
    assert caught.value.problems == (Problem(message, path),)


@pytest.mark.parametrize(("key", "path"), [("device-map", "device-map"), ("no-such-flag", "no_such_flag")])
def test_a_server_flag_that_is_in_no_file_has_no_position(key: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        InferenceConfigFile(transformers={key: "x"}).server()
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, problem.column) == (f"transformers.{path}", 0, 0)


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("https://github.com/o/r/blob/main/a/b.json", "use https://raw.githubusercontent.com/o/r/main/a/b.json"),
        ("https://github.com/o/r/blob/main", None),
        ("https://github.com/o/r/raw/main/a.json", None),
        ("https://hf.co/datasets/o/d/blob/main/a/b.json", "use https://hf.co/datasets/o/d/resolve/main/a/b.json"),
        ("https://hf.co/datasets/o/d/tree/main", f"use the address of a file, {OF_DATASET}"),
        ("https://hf.co/datasets/o/d", f"use the address of a file, {OF_DATASET}"),
        ("https://hf.co/datasets/o/d/viewer/default/train", f"use the address of a file, {OF_DATASET}"),
        ("https://hf.co/datasets/d/blob/main/a/b.json", "use https://hf.co/datasets/d/resolve/main/a/b.json"),
        ("https://hf.co/datasets/d/tree/main", f"use the address of a file, {OF_DATASET.replace('/o', '')}"),
        ("https://hf.co/datasets/d/resolve/main/b.json", None),
        ("https://hf.co/datasets/o/d/resolve/main/b.json", None),
        ("https://hf.co/o/m/blob/main/b.json", None),
        ("https://example.com/datasets/o/d", None),
    ],
)
def test_a_page_about_a_file_is_refused_with_the_address_of_the_file(url: str, remedy: str | None) -> None:
    assert page_problem(url) == (None if remedy is None else f"{url!r} is a page and not a file: {remedy}")
