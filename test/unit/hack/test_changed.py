"""What `make test-changed` and `make check-fast` run on."""

import subprocess
from pathlib import Path

import pytest

from hack.check import changed

FOLDERS = ("test/unit/runtime/cache", "test/unit/runtime/client", "test/unit/workspace", "test/unit/hack")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["kaito/runtime/cache/store.py"], ["test/unit/runtime/cache"]),
        (["kaito/runtime/cache/reflector/watch.py"], ["test/unit/runtime/cache"]),
        (["kaito/runtime/tasks.py"], ["test/unit/runtime"]),
        (["kaito/runtime/tasks.py", "kaito/runtime/cache/store.py"], ["test/unit/runtime"]),
        (["kaito/nothing/tested.py"], []),
        (["test/unit/workspace/test_life.py"], ["test/unit/workspace/test_life.py"]),
        (["test/unit/workspace/conftest.py", "test/unit/workspace/test_life.py"], ["test/unit/workspace"]),
        (["hack/check/size.py"], ["test/unit/hack"]),
        (["README.md", "presets/src/kaito_presets/machine.py"], []),
    ],
)
def test_a_file_leads_to_the_tests_of_its_package(root: Path, files: list[str], expected: list[str]) -> None:
    assert changed.unit_tests([Path(file) for file in files], root) == [Path(path) for path in expected]


def test_changed_files_are_those_since_main_and_those_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], cwd=tmp_path, check=True)

    git("init", "-q", "-b", "main")
    for name in ("old.py", "edited.py", "deleted.py"):
        (tmp_path / name).write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("checkout", "-q", "-b", "branch")
    (tmp_path / "committed.py").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "second")
    (tmp_path / "edited.py").write_text("1")
    (tmp_path / "deleted.py").unlink()
    (tmp_path / "untracked.py").write_text("")

    monkeypatch.chdir(tmp_path)
    assert changed.changed(tmp_path) == [Path("committed.py"), Path("edited.py"), Path("untracked.py")]
