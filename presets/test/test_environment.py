"""A container without a place for temporary files or without permission to read the model is reported as that."""

import os
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import pytest
from kaito_presets.environment import check_readable, check_temporary_directory
from kaito_presets.errors import AdapterError, ConfigurationError, DataError, ModelLoadError
from kaito_presets.serving.adapters import find_adapters
from kaito_presets.tuning.config import TrainingConfig
from kaito_presets.tuning.options import TuningOptions
from kaito_presets.tuning.progress import Progress
from kaito_presets.tuning.run import run
from kaito_presets.vllm.arguments import read_model


def deny(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Reading files of that name is forbidden; the tests may run as root, to whom everything is allowed."""
    real = Path.open

    def guarded(self: Path, *arguments: object, **options: object) -> object:
        if self.name == name:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)  # type: ignore[call-overload]  # passed through

    monkeypatch.setattr(Path, "open", guarded)


def test_missing_temporary_directory_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """M5: exit code 2 and the remedy, instead of the words of a half-imported torch and exit code 4."""

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    check_temporary_directory()
    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    with pytest.raises(ConfigurationError, match=r"/tmp is missing.*mount an emptyDir volume at /tmp"):
        check_temporary_directory()


@pytest.mark.parametrize("module", ["kaito_presets.inference.main", "kaito_presets.vllm.main"])
def test_both_servers_check_the_temporary_directory_first(tmp_path: Path, module: str) -> None:
    """M5: a process in which no directory can be written ends with 2 and names the cause."""
    code = (
        "import sys, tempfile\n"
        "def none(*_): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile._get_default_tempdir = none\n"
        f"from {module} import main\n"
        f"sys.argv[1:] = ['--port=0']\n"
        "sys.exit(main())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert process.returncode == 2
    assert "mount an emptyDir volume at /tmp" in process.stderr.splitlines()[-1]


def test_unreadable_weights_are_reported_with_user_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L14: files packed with mode 0600 are not "missing"; exit code 4 with user, file and remedy."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    check_readable(tmp_path)
    check_readable(tmp_path / "absent")
    deny(monkeypatch, "model.safetensors")
    words = rf"no permission to read .*model\.safetensors.*user {os.getuid()}.*chmod -R a\+rX"
    with pytest.raises(ModelLoadError, match=words) as caught:
        check_readable(tmp_path)
    assert caught.value.exit_code == 4
    with pytest.raises(ModelLoadError, match=words):
        read_model(str(tmp_path))


def test_unreadable_adapter_is_reported_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L14: the same for an adapter."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    find_adapters(tmp_path, {})
    deny(monkeypatch, "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="'mine': no permission to read"):
        find_adapters(tmp_path, {})


def test_a_tuning_job_checks_both_before_it_reads_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M5 and L14 for tuning: no data is downloaded and torch is not imported before the cause is known."""
    model, data = tmp_path / "model", tmp_path / "data"
    model.mkdir()
    data.mkdir()
    (model / "config.json").write_text("{}")
    options = TuningOptions(model=str(model), data_dir=data)
    job = partial(run, options, TrainingConfig(), Progress(), threading.Event())
    with pytest.raises(DataError):
        job()
    deny(monkeypatch, "config.json")
    with pytest.raises(ModelLoadError, match=r"no permission to read .*config\.json"):
        job()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.raises(ConfigurationError, match=r"Read-only file system.*mount an emptyDir volume at /tmp"):
        job()
