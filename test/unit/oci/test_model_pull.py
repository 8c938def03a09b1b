"""Pulling a model: interruptions at every point, wrong digests, hostile archives, several processes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kaito_oci import download, marker as markers
from kaito_oci.errors import CredentialsRejected, InsufficientDisk, NotAModel, ProgramError, RegistryError
from kaito_oci.marker import MARKER, read_marker
from kaito_oci.model_artifact import pack_model
from kaito_oci.model_cache import entry_directory, pull_cached
from kaito_oci.model_pull import PullOptions, pull_model
from kaito_oci.model_push import push_model
from kaito_oci.progress import Progress, reporting, serving
from kaito_oci.reference import parse_reference

from test.support.model_registry import LOADED, Content, archive, digest_of, model_directory, model_registry

RAW = "application/vnd.cncf.model.weight.v1.raw"
TAR = "application/vnd.cncf.model.weight.v1.tar"
LAYER = "application/vnd.oci.image.layer.v1.tar"
WEIGHTS = bytes(range(256)) * 4000

pauses: list[float] = []


@pytest.fixture
def registry() -> Iterator[Content]:
    pauses.clear()
    with model_registry() as content:
        yield content


@pytest.fixture
def packed(registry: Content, tmp_path: Path) -> Path:
    """A model in the registry, packed by us; its directory."""
    directory = model_directory(tmp_path / "model", bytes_of_weights=3_000_000)
    artifact = pack_model(directory)
    reference = parse_reference(f"{registry.address}/m/x:1")
    push_model(reference, artifact.blobs, artifact.manifests, artifact.index)
    registry.requests.clear()
    return directory


def pull(
    registry: Content,
    directory: Path,
    progress: Progress | None = None,
    *,
    parallel: int = 4,
    sleep: Callable[[float], Any] = pauses.append,
) -> list[str]:
    reference = parse_reference(f"{registry.address}/m/x:1")
    options = PullOptions(parallel=parallel, sleep=sleep)
    return list(pull_model(reference, directory, progress or Progress(), options).files)


def assert_model(directory: Path, expected: Path) -> None:
    for name in LOADED:
        assert (directory / name).read_bytes() == (expected / name).read_bytes(), name
    hidden = sorted(path.name for path in directory.iterdir() if path.name.startswith("."))
    assert hidden == [".kaito-lock", MARKER]
    assert (directory / "model.safetensors").stat().st_mode & 0o777 == 0o644


def weights_digest(registry: Content) -> str:
    return max(registry.blobs, key=lambda digest: len(registry.blobs[digest]))


def test_pulled_files_equal_the_packed_ones_and_are_not_pulled_again(
    registry: Content, packed: Path, tmp_path: Path
) -> None:
    progress = Progress()
    assert pull(registry, tmp_path / "out", progress) == LOADED
    assert_model(tmp_path / "out", packed)
    assert progress.snapshot()["phase"] == "complete"
    assert progress.snapshot()["bytes"] == progress.total > 3_000_000
    registry.requests.clear()
    pull(registry, tmp_path / "out")
    assert registry.downloads() == []


def test_layers_are_pulled_at_the_same_time(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.barrier = threading.Barrier(5)  # a sequential pull breaks the barrier
    pull(registry, tmp_path / "out", parallel=5)
    assert_model(tmp_path / "out", packed)


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 513, 1_000_000, 2_999_000, 3_000_600])
def test_a_cut_connection_continues_after_the_last_byte(
    registry: Content, packed: Path, tmp_path: Path, cut: int
) -> None:
    registry.cuts = [cut]
    pull(registry, tmp_path / "out", parallel=1)
    assert_model(tmp_path / "out", packed)
    first, second, *_ = registry.downloads()
    assert first[0] == second[0] == weights_digest(registry)
    assert len(pauses) == 1
    transferred = sum(1 for name, _ in registry.downloads() if name == weights_digest(registry))
    assert transferred == (2 if cut <= 512 else 3)
    if cut > 512:
        assert registry.downloads()[2] == (weights_digest(registry), f"bytes={min(cut, 3_000_220)}-") or cut > 3_000_000


def test_any_number_of_cuts_is_survived_while_bytes_arrive(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.cuts = [100_000] * 60
    pull(registry, tmp_path / "out", parallel=1)
    assert_model(tmp_path / "out", packed)
    assert len(pauses) > 20
    assert max(pauses) <= 2.0


def test_a_registry_that_sends_nothing_is_reported(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.cuts = [0] * 100
    with pytest.raises(RegistryError, match=r"x:1: download of model\.safetensors: the connection ended early"):
        pull(registry, tmp_path / "out", parallel=1)
    assert not (tmp_path / "out" / MARKER).exists()


def test_a_registry_without_ranges_is_read_from_the_start(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.ranges = False
    registry.cuts = [2_000_000]
    pull(registry, tmp_path / "out", parallel=1)
    assert_model(tmp_path / "out", packed)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_temporary_statuses_are_retried_after_retry_after(
    registry: Content, packed: Path, tmp_path: Path, status: int
) -> None:
    registry.answers = [(status, {"Retry-After": "7"}), (status, {}), (status, {"Retry-After": "900"})]
    pull(registry, tmp_path / "out", parallel=1)
    assert_model(tmp_path / "out", packed)
    assert pauses[0] == 7.0
    assert pauses[2] == 30.0


def test_a_status_during_the_download_is_retried(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.cuts = [100_000]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            registry.answers = [(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})]

    pull(registry, tmp_path / "out", sleep=sleep, parallel=1)
    assert_model(tmp_path / "out", packed)
    assert pauses == [1.0, 0.0]  # no delay for a date in the past


def test_a_token_that_expires_is_renewed(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.authorization = "Bearer first"
    registry.cuts = [1_000_000]

    def expire(seconds: float) -> None:
        registry.authorization = "Bearer another"

    reference = parse_reference(f"{registry.address}/m/x:1")
    pull_model(reference, tmp_path / "out", Progress(), PullOptions(sleep=expire, parallel=1))
    assert_model(tmp_path / "out", packed)
    assert registry.tokens == 2


def test_a_damaged_transfer_is_repeated_once(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.damaged = {weights_digest(registry): 1}
    pull(registry, tmp_path / "out", parallel=1)
    assert_model(tmp_path / "out", packed)


def test_a_wrong_digest_is_an_error_and_leaves_no_file(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.damaged = {weights_digest(registry): 9}
    with pytest.raises(RegistryError, match=r"the content of model\.safetensors does not match its digest"):
        pull(registry, tmp_path / "out", parallel=1)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert len([name for name, _ in registry.downloads() if name == weights_digest(registry)]) == 2
    registry.damaged = {}
    pull(registry, tmp_path / "out")
    assert_model(tmp_path / "out", packed)


def test_a_damaged_partial_file_is_downloaded_again(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.cuts = [2_000_000, *[0] * 50]
    with pytest.raises(RegistryError):
        pull(registry, tmp_path / "out", parallel=1)
    (part,) = (tmp_path / "out" / ".kaito-partial").glob("*.part")
    assert 1_900_000 < part.stat().st_size < 2_000_000
    content = bytearray(part.read_bytes())
    content[1000] ^= 1
    part.write_bytes(content)
    registry.cuts = []
    pull(registry, tmp_path / "out")
    assert_model(tmp_path / "out", packed)


def test_a_moved_tag_replaces_the_files(registry: Content, packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pull(registry, out)
    registry.add((RAW, b"{}", "config.json"), (RAW, WEIGHTS, "new.safetensors"))
    assert pull(registry, out) == ["config.json", "new.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == [".kaito-lock", MARKER, "config.json", "new.safetensors"]


class Killed(BaseException):
    """The process ends here."""


def test_a_restart_at_any_line_loses_nothing(
    registry: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends the pull at each call that changes the disk, one after the other, and lets the next pull finish."""
    registry.add(
        (RAW, WEIGHTS, "model.safetensors"),
        (LAYER, archive({"config.json": b"{}"}), "config.json"),
        (f"{TAR}+gzip", gzip.compress(archive({"a/b": b"1", "c": b"2"})), ""),
    )
    calls = [(Path, "replace"), (Path, "rename"), (Path, "unlink"), (os, "fsync"), (Path, "mkdir"), (Path, "chmod")]
    originals = {(owner, name): getattr(owner, name) for owner, name in calls}
    left = -1

    def counted(original: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if threading.current_thread().name.startswith("progress"):
                return original(*arguments, **options)
            if left == 0:
                raise Killed
            left -= 1
            return original(*arguments, **options)

        return call

    for (owner, name), original in originals.items():
        monkeypatch.setattr(owner, name, counted(original))
    ended = 0
    for position in range(200):
        out = tmp_path / str(position)
        left = position
        try:
            pull(registry, out, parallel=1)
        except Killed:
            ended += 1
            left = -1
            registry.requests.clear()
            pull(registry, out, parallel=1)
        else:
            break
        finally:
            left = -1
        assert sorted(read_marker(out).files) == ["a/b", "c", "config.json", "model.safetensors"]  # type: ignore[union-attr]
        assert (out / "model.safetensors").read_bytes() == WEIGHTS
        assert (out / "a" / "b").read_bytes() == b"1"
        assert not (out / ".kaito-partial").exists()
    assert ended > 15


def test_too_small_a_disk_is_refused_before_the_transfer(
    registry: Content, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small:
        f_bavail, f_frsize = 1000, 1000

    def small(_: Path) -> type[Small]:
        return Small

    monkeypatch.setattr("os.statvfs", small)
    with pytest.raises(InsufficientDisk, match=r"1\.0 MB of free disk space, 3\.\d MB are needed"):
        pull(registry, tmp_path / "out")
    assert registry.downloads() == []


def test_a_full_disk_is_reported_as_one(
    registry: Content, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "sync", full)
    with pytest.raises(ProgramError, match="No space left"):
        pull(registry, tmp_path / "out")


def test_a_registry_that_is_unreachable_leaves_a_complete_copy_in_use(
    registry: Content, packed: Path, tmp_path: Path
) -> None:
    pull(registry, tmp_path / "out")
    registry.answers = [(503, {})] * 20
    assert pull(registry, tmp_path / "out") == LOADED
    with pytest.raises(RegistryError, match="status 503"):
        pull(registry, tmp_path / "other")
    registry.answers = [(403, {})] * 20
    with pytest.raises(CredentialsRejected):
        pull(registry, tmp_path / "out")


# ModelPack, ORAS and hostile artifacts.


def test_modelpack_artifacts_are_read(registry: Content, tmp_path: Path) -> None:
    registry.add(
        (RAW, WEIGHTS, "model-00001-of-00001.safetensors"),
        ("application/vnd.cncf.model.weight.config.v1.raw", b"{}", "config.json"),
        ("application/vnd.cncf.model.doc.v1.tar", archive({"docs/README.md": b"# x", "./LICENSE": b"mit"}), "docs"),
        (f"{TAR}+gzip", gzip.compress(archive({"tokenizer.json": b"[]"})), "tokenizer.json"),
        (RAW, b"", "empty.txt"),
    )
    out = tmp_path / "out"
    names = pull(registry, out)
    assert sorted(names) == [
        "LICENSE", "config.json", "docs/README.md", "empty.txt", "model-00001-of-00001.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert (out / "docs" / "README.md").read_bytes() == b"# x"
    assert (out / "model-00001-of-00001.safetensors").read_bytes() == WEIGHTS
    assert (out / "tokenizer.json").read_bytes() == b"[]"


def test_the_title_of_oras_names_a_file(registry: Content, tmp_path: Path) -> None:
    blob = b"{}"
    layer = {
        "mediaType": "application/octet-stream", "digest": digest_of(blob), "size": 2,
        "annotations": {"org.opencontainers.image.title": "config.json"},
    }  # fmt: skip
    document = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
    registry.blobs[digest_of(blob)] = blob
    registry.manifests["1"] = ("application/vnd.oci.image.manifest.v1+json", document)
    assert pull(registry, tmp_path / "out") == ["config.json"]


def test_files_with_the_same_content_are_downloaded_once(registry: Content, tmp_path: Path) -> None:
    registry.add((RAW, b"{}", "a.json"), (RAW, b"{}", "b.json"))
    assert pull(registry, tmp_path / "out") == ["a.json", "b.json"]
    assert (tmp_path / "out" / "b.json").read_bytes() == b"{}"
    assert len(registry.downloads()) == 1


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([(RAW, b"x", "../x")], "not a path inside the model directory"),
        ([(RAW, b"x", "/etc/x")], "not a path inside the model directory"),
        ([(RAW, b"x", "a/../../x")], "not a path inside the model directory"),
        ([(RAW, b"x", ".kaito-model.json")], "not a path inside the model directory"),
        ([(RAW, b"x", ".kaito-partial/x")], "not a path inside the model directory"),
        ([(RAW, b"x", "")], "has no file name"),
        ([(TAR, archive({"../x": b"1"}), "")], "not a path inside the model directory"),
        ([(TAR, archive({"../x": b"1"}), "x")], "not a path inside the model directory"),
        ([(TAR, archive({"/x": b"1"}), "")], "not a path inside the model directory"),
        ([(TAR, archive({"x": (b"2", "/etc/passwd")}), "")], "is a link or a device"),
        ([(TAR, archive({"a": b"1", "x": (b"1", "a")}), "")], "is a link or a device"),
        ([(TAR, archive({"x": (b"3", "")}), "x")], "is a link or a device"),
        ([(TAR, b"not a tar" * 100, "x")], "is not a tar archive"),
        ([(f"{TAR}+gzip", b"not gzip", "x")], "not a gzip file"),
        ([(f"{TAR}+gzip", gzip.compress(archive({"a": b"1"}))[:-20], "x")], "is not a tar archive"),
        ([(RAW, b"1", "x"), (RAW, b"2", "x")], "two layers contain 'x'"),
        ([(RAW, b"1", "x"), (RAW, b"2", "x/y")], "'x' is a file and a directory"),
        ([(TAR, archive({"x": b"1", "./x": b"2"}), "")], "is in the archive twice"),
        ([(f"{RAW}+gzip", b"1", "x")], "not supported"),
    ],
)
def test_hostile_artifacts_are_refused(
    registry: Content, tmp_path: Path, layers: list[tuple[str, bytes, str]], words: str
) -> None:
    registry.add(*layers)
    out = tmp_path / "folder" / "out"
    with pytest.raises(RegistryError, match=words):
        pull(registry, out)
    assert not (out / MARKER).exists()
    assert not out.parent.exists() or {path.name for path in out.parent.iterdir()} == {"out"}
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "document",
    [
        b"[]", b"{", b"{}", b'{"layers": {}}', b'{"layers": [1]}', b'{"layers": [{"digest": "sha256:1", "size": 1}]}',
        b'{"layers": [{"digest": "md5:1", "size": 1}]}',
        b'{"layers": [{"digest": "sha256:%s", "size": -1}]}' % (b"0" * 64),
        b'{"manifests": []}', b'{"manifests": 3}',
    ],
)  # fmt: skip
def test_malformed_manifests_are_reported(registry: Content, tmp_path: Path, document: bytes) -> None:
    registry.manifests["1"] = ("application/vnd.oci.image.manifest.v1+json", document)
    with pytest.raises(RegistryError, match="x:1"):
        pull(registry, tmp_path / "out")


def test_an_artifact_without_files_is_not_a_model(registry: Content, tmp_path: Path) -> None:
    registry.manifests["1"] = ("application/vnd.oci.image.manifest.v1+json", b'{"layers": []}')
    with pytest.raises(NotAModel, match="contains no files"):
        pull(registry, tmp_path / "out")


# The cache of a node.


def cached(registry: Content, directory: Path, cache: Path) -> Path:
    reference = parse_reference(f"{registry.address}/m/x:1")
    marker = pull_cached(reference, directory, cache, Progress(), PullOptions(sleep=pauses.append))
    return entry_directory(cache, marker.digest)


def test_a_second_pod_transfers_nothing(registry: Content, packed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    entry = cached(registry, tmp_path / "pod1" / "weights", cache)
    registry.requests.clear()
    assert cached(registry, tmp_path / "pod2" / "weights", cache) == entry
    assert registry.downloads() == []
    assert_model(tmp_path / "pod2" / "weights", packed)
    assert (tmp_path / "pod2" / "weights").readlink() == entry


def test_an_existing_directory_gets_links(registry: Content, packed: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    entry = cached(registry, mounted, tmp_path / "cache")
    assert (mounted / "model.safetensors").samefile(entry / "model.safetensors")
    assert not (mounted / "model.safetensors").is_symlink()
    assert read_marker(mounted) is not None
    cached(registry, mounted, tmp_path / "cache")
    registry.add((RAW, b"{}", "config.json"))
    cached(registry, mounted, tmp_path / "cache")
    assert sorted(path.name for path in mounted.iterdir()) == [MARKER, "config.json"]


def test_another_file_system_gets_symbolic_links(
    registry: Content, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def across(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", across)
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    entry = cached(registry, mounted, tmp_path / "cache")
    assert (mounted / "config.json").readlink() == entry / "config.json"


def test_the_cache_serves_while_the_registry_is_unreachable(registry: Content, packed: Path, tmp_path: Path) -> None:
    cached(registry, tmp_path / "one", tmp_path / "cache")
    registry.answers = [(503, {})] * 20
    cached(registry, tmp_path / "two", tmp_path / "cache")
    assert_model(tmp_path / "two", packed)
    registry.answers = [(401, {"WWW-Authenticate": 'Basic realm="x"'})] * 20
    with pytest.raises(CredentialsRejected):
        cached(registry, tmp_path / "three", tmp_path / "cache")


PROGRAM = "import sys; from kaito_oci.pull_command import main; sys.exit(main())"


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(registry: Content) -> Iterator[Start]:
    """Starts `kaito-pull-model`; what still runs at the end is killed."""
    with ExitStack() as stack:

        def begin(directory: Path, *arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, f"{registry.address}/m/x:1", str(directory), *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def test_a_second_process_waits_for_the_first_and_takes_over_when_it_is_killed(
    registry: Content, packed: Path, tmp_path: Path, start: Start
) -> None:
    registry.hold = threading.Event()
    cache = f"--cache={tmp_path / 'cache'}"
    first = start(tmp_path / "one", cache)
    assert registry.held.wait(40), first.communicate()
    second = start(tmp_path / "two", cache)
    assert second.stderr is not None
    for line in second.stderr:
        if "waiting: another process pulls" in line:
            break
    names = [name for name, _ in registry.downloads()]
    assert len(set(names)) == len(names), "only the first process downloads"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    registry.hold.set()
    registry.hold = None
    output, errors = second.communicate(timeout=40)
    assert second.returncode == 0, errors
    assert "model.safetensors" in output
    assert_model(tmp_path / "two", packed)
    ranges = [wanted for name, wanted in registry.downloads() if name == weights_digest(registry)]
    assert any(wanted.startswith("bytes=1") for wanted in ranges), "the second process continues after the first half"


def test_the_command_reports_failures_by_exit_code_and_last_line(
    registry: Content, tmp_path: Path, start: Start
) -> None:
    process = start(tmp_path / "out")
    output, errors = process.communicate(timeout=40)
    assert process.returncode == 5
    assert output == ""
    assert errors.splitlines()[-1].startswith(
        f"kaito-pull-model: {registry.address}/m/x:1: GET manifests/1: status 404"
    )


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--parallel=0"], 2), (["--unknown"], 2), (["--docker-config=/absent"], 2)]
)
def test_wrong_flags_are_configuration_errors(tmp_path: Path, start: Start, arguments: list[str], code: int) -> None:
    process = start(tmp_path / "out", *arguments)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == code, errors


def test_the_termination_message_is_the_reason(
    registry: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaito_oci import pull_command

    file = tmp_path / "termination-log"
    file.touch()
    monkeypatch.setattr(pull_command, "TERMINATION_LOG", file)
    monkeypatch.setattr(sys, "argv", ["x", f"{registry.address}/m/x:1", str(tmp_path / "out")])
    assert pull_command.main() == 5
    assert "status 404" in file.read_text()


# Progress.


def test_progress_is_served_and_written_while_pulling(registry: Content, packed: Path, tmp_path: Path) -> None:
    registry.hold = threading.Event()
    progress, ports = Progress("x:1"), list[int]()
    file = tmp_path / "progress.json"
    progress.files.append(file)
    with serving(progress, 0, started=ports.append), reporting(progress, interval_seconds=0.01):
        thread = threading.Thread(target=pull, args=(registry, tmp_path / "out", progress))
        thread.start()
        assert registry.held.wait(20)
        while progress.done < 1_000_000:
            time.sleep(0.01)
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/progress") as response:
            state = json.load(response)
        assert state["phase"] == "pulling"
        assert 1_000_000 <= state["bytes"] < state["total"]
        assert state["reference"] == "x:1"
        assert progress.line().startswith("pulling 1.")
        registry.hold.set()
        thread.join()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/other")
    assert json.loads(file.read_text())["phase"] == "complete"


def test_sizes_are_formatted_in_the_unit_of_the_total() -> None:
    progress = Progress()
    progress.start("pulling", 7_600_000_000)
    progress.update("a", 3_100_000_000)
    assert progress.line() == "pulling 3.1 of 7.6 GB"


def test_a_port_that_is_in_use_does_not_prevent_the_pull(registry: Content, packed: Path, tmp_path: Path) -> None:
    port = int(registry.address.rpartition(":")[2])
    with serving(Progress(), port):
        pull(registry, tmp_path / "out")
    assert_model(tmp_path / "out", packed)


def test_a_file_system_without_locks_is_accepted(
    registry: Content, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    pull(registry, tmp_path / "out")
    assert_model(tmp_path / "out", packed)


def test_a_marker_with_a_missing_file_is_not_complete(registry: Content, packed: Path, tmp_path: Path) -> None:
    pull(registry, tmp_path / "out")
    (tmp_path / "out" / "config.json").unlink()
    assert markers.read_marker(tmp_path / "out") is None
    pull(registry, tmp_path / "out")
    assert_model(tmp_path / "out", packed)
