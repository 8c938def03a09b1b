"""`training_config.yaml` and the flags of the tuning job."""

import dataclasses
import socket
from pathlib import Path

import pytest
import yaml
from kaito_config.training_arguments import LIBRARY_KEYS, OPTIMIZERS, SCHEDULES
from kaito_presets.errors import ConfigurationError
from kaito_presets.tuning.config import TrainingConfig, read_training_config
from kaito_presets.tuning.options import TuningOptions, read_options
from kaito_presets.tuning.progress import Progress

# Upstream's template for qlora (v0.3), key by key.
UPSTREAM_QLORA = """
training_config:
  ModelConfig: {torch_dtype: bfloat16, local_files_only: true, device_map: auto, chat_template: null}
  QuantizationConfig:
    load_in_4bit: true
    bnb_4bit_quant_type: nf4
    bnb_4bit_compute_dtype: bfloat16
    bnb_4bit_use_double_quant: true
  LoraConfig: {r: 8, lora_alpha: 8, lora_dropout: 0.0}
  TrainingArguments:
    output_dir: /mnt/results
    ddp_find_unused_parameters: false
    save_strategy: epoch
    per_device_train_batch_size: 1
  DataCollator: {mlm: true}
  DatasetConfig: {shuffle_dataset: true, train_test_split: 1}
"""


def config(text: str, tmp_path: Path) -> TrainingConfig:
    file = tmp_path / "training_config.yaml"
    file.write_text(text)
    return read_training_config(file)


def test_upstreams_template_is_accepted_and_null_means_default(tmp_path: Path) -> None:
    parsed = config(UPSTREAM_QLORA, tmp_path)
    assert parsed.bits("qlora") == 4
    assert parsed.ModelConfig.chat_template is None
    assert parsed.TrainingArguments.save_strategy == "epoch"
    assert parsed.TrainingArguments.extra_keys() == {"ddp_find_unused_parameters": False}


def test_no_file_gives_the_defaults_of_the_method() -> None:
    assert read_training_config(None).bits("qlora") == 4
    assert read_training_config(None).bits("lora") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training_config: {LoraCnfig: {}}", "LoraCnfig"),
        ("training_config: {LoraConfig: {rank: 8}}", "LoraConfig.rank"),
        ("training_config: {LoraConfig: {r: many}}", "LoraConfig.r: "),
        ("training_config: {QuantizationConfig: {load_in_4bit: true, load_in_8bit: true}}", "exclude each other"),
        ("training_config: {DatasetConfig: {train_test_split: 0}}", "train_test_split"),
        ("LoraConfig: {}", "only top-level key"),
        ("- 1", "only top-level key"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_files_are_refused_with_section_and_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        config(text, tmp_path)


def test_method_and_quantization_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="use method qlora"):
        config(UPSTREAM_QLORA, tmp_path).bits("lora")
    whole = config("training_config: {QuantizationConfig: {load_in_4bit: false}}", tmp_path)
    with pytest.raises(ConfigurationError, match="needs QuantizationConfig"):
        whole.bits("qlora")
    assert config("training_config: {QuantizationConfig: {load_in_8bit: true}}", tmp_path).bits("qlora") == 8


def test_every_key_of_the_table_in_the_readme_exists() -> None:
    """The README documents the file; this keeps it honest."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    example = readme.partition("```yaml")[2].partition("```")[0]
    TrainingConfig.model_validate(yaml.safe_load(example)["training_config"])


def test_flags_and_environment(tmp_path: Path) -> None:
    options = read_options(
        ["--data-urls", "http://a/x", "http://b/y", "--method=lora", "--data_dir", "/d"], {"DATA_URLS": "http://c/z"}
    )
    assert options.data_urls == ("http://a/x", "http://b/y")
    assert (options.method, options.data_dir) == ("lora", Path("/d"))
    assert read_options([], {"DATA_URLS": "http://c/z http://d/w"}).data_urls == ("http://c/z", "http://d/w")
    assert read_options([], {"DATA_URLS": '["http://c/a b"]'}).data_urls == ("http://c/a b",)
    with pytest.raises(ConfigurationError, match="metod"):
        read_options(["--metod=lora"], {})
    with pytest.raises(ConfigurationError, match="method"):
        read_options(["--method=full"], {})


@pytest.mark.parametrize(
    ("output", "result"),
    [
        ("/mnt/results", "/mnt/results"),
        ("results", "/mnt/results"),
        (None, "/mnt/output"),
        ("/mntfoo", None),
        ("/mnt", None),
        ("../etc", None),
    ],
)
def test_output_path_must_be_below_the_base_directory(output: str | None, result: str | None) -> None:
    chosen = TrainingConfig.model_validate({"TrainingArguments": {"output_dir": output}})
    if result is None:
        with pytest.raises(ConfigurationError, match="must be below"):
            TuningOptions().output(chosen)
    else:
        assert TuningOptions().output(chosen) == Path(result)
    # The operator's flag is not the user's choice.
    assert TuningOptions(output_dir=Path("/elsewhere")).output(chosen) == Path("/elsewhere")


@pytest.mark.tuning
def test_list_of_library_keys_is_the_installed_librarys() -> None:
    """The controller has no transformers; it refuses unknown keys of TrainingArguments by this list."""
    from transformers import TrainingArguments
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    assert {field.name for field in dataclasses.fields(TrainingArguments)} == LIBRARY_KEYS
    assert {name.value for name in OptimizerNames} == OPTIMIZERS
    assert {name.value for name in SchedulerType} == SCHEDULES


def test_address_of_the_metrics_comes_from_the_flag_or_the_environment() -> None:
    assert read_options([], {}).metrics_host == "0.0.0.0"
    assert read_options([], {"KAITO_METRICS_HOST": "127.64.0.7"}).metrics_host == "127.64.0.7"
    assert read_options(["--metrics-host=127.0.0.2"], {"KAITO_METRICS_HOST": "127.64.0.7"}).metrics_host == "127.0.0.2"


def test_metrics_address_in_use_does_not_fail_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """A tuning pod on a host network may find the port of the metrics in use."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = int(taken.getsockname()[1])
        progress = Progress()
        assert progress.serve(port, "127.0.0.1") is None
    assert "metrics disabled: cannot listen on 127.0.0.1" in caplog.text
    assert progress.serve(0, "127.0.0.1")
    progress.close()


def test_addresses_in_the_cluster_are_allowed_by_the_controllers_variable() -> None:
    assert not read_options([], {}).allow_in_cluster_data_urls
    assert read_options([], {"KAITO_ALLOW_IN_CLUSTER_DATA_URLS": "true"}).allow_in_cluster_data_urls
