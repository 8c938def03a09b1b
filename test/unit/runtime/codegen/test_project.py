"""`kaito-runtime init` and `add`: the names, the files, repeated and refused changes, and the tests of what is made."""

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from kaito.runtime.codegen.command import main
from kaito.runtime.codegen.project.contents import RECORD
from kaito.runtime.codegen.project.names import KIND_LENGTH, NAME_LENGTH, module_of, plural_of, variable_of

ROOT = Path(__file__).resolve().parents[4]
LONG_NAME = "n" * NAME_LENGTH
LONG_KIND = "Ab" * (KIND_LENGTH // 2)


def tool(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def make(folder: Path, name: str = "site-operator", kind: str = "example.com/v1/Site") -> Path:
    assert tool("init", name, "--kind", kind, "--directory", folder / name) == 0
    return folder / name


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project; tests change a copy of it."""
    return make(tmp_path_factory.mktemp("fresh"))


@pytest.fixture
def folder(fresh: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fresh, tmp_path / fresh.name)


def add(folder: Path, *arguments: str) -> int:
    return tool("add", *arguments, "--directory", folder)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def passes(folder: Path, *command: str) -> None:
    ran = run(folder, *command)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"__pycache__", ".pytest_cache", ".ruff_cache"} & set(path.parts)
    }


def generate(folder: Path) -> None:
    """What `make generate` does."""
    passes(folder, folder.name.replace("-", "_") + ".chart")
    role = "--write-role=chart/files/cluster-role.yaml"
    passes(folder, "pytest", "-q", "-p", "no:cacheprovider", "--ignore=tests/test_chart.py", role)


@pytest.mark.conformance("project-1")
def test_a_new_project_passes_its_tests_and_its_generated_files_are_current(folder: Path) -> None:
    made = contents(folder)
    passes(folder, "pytest", "-q", "-p", "no:cacheprovider")
    generate(folder)
    assert contents(folder) == made


def test_the_page_lists_its_files(fresh: Path) -> None:
    page = (ROOT / "docs" / "framework" / "start-a-project.md").read_text()
    _, listed = page.split('```text title="kaito-runtime init site-operator --kind example.com/v1/Site"\n')
    assert listed.partition("\n```")[0].split("\n") == list(contents(fresh))


@pytest.mark.slow("test_a_new_project_passes_its_tests_and_its_generated_files_are_current")
@pytest.mark.conformance("project-2")
def test_what_is_added_passes_its_tests(folder: Path) -> None:
    assert add(folder, "kind", "shop.example.com/v1alpha1/HTTPProxy") == 0
    assert add(folder, "webhook", "Site") == 0
    assert add(folder, "conversion", "Site", "--version", "v1beta1") == 0
    assert add(folder, "conversion", "Site", "--version", "v2") == 0
    generate(folder)
    passes(folder, "pytest", "-q", "-p", "no:cacheprovider")
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        passes(folder, "ruff", *command, ".")


@pytest.mark.slow("test_names_are_derived_as_people_write_them")
def test_names_of_any_length_and_words_of_python_give_clean_code(tmp_path: Path) -> None:
    folder = make(tmp_path, LONG_NAME, f"example.com/v1/{LONG_KIND}")
    kinds = ("A", "Filter", "Import", "HTTPRoute", "Status", "Declarations")
    for kind in kinds:
        assert add(folder, "kind", f"other.example.com/v1beta2/{kind}") == 0
    for kind in (LONG_KIND, *kinds):
        assert add(folder, "webhook", kind) == 0
        assert add(folder, "conversion", kind, "--version", "v1alpha1") == 0
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache", "--diff"]):
        passes(folder, "ruff", *command, ".")
    passes(folder, "pytest", "-q", "-p", "no:cacheprovider", "--ignore=tests/test_chart.py")


def test_the_code_has_the_style_of_this_repository(folder: Path) -> None:
    assert add(folder, "webhook", "Site") == 0
    assert add(folder, "conversion", "Site", "--version", "v1beta1") == 0
    package = str(folder / "site_operator")
    passes(ROOT, "ruff", "check", "--no-cache", "--config", "pyproject.toml", "--ignore", "I001", package)
    for path, text in contents(folder).items():
        if path.endswith(".py"):
            assert "type: ignore" not in text
            assert "noqa" not in text


@pytest.mark.conformance("project-2")
def test_a_repeated_addition_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    additions = (
        ["kind", "example.com/v1/Page"],
        ["webhook", "Page"],
        ["conversion", "Page", "--version", "v1beta1"],
    )
    for arguments in additions:
        assert add(folder, *arguments) == 0
    before = contents(folder)
    capsys.readouterr()
    for arguments in additions:
        assert add(folder, *arguments) == 0
        assert capsys.readouterr().out == "the project has it already: nothing was written\n"
    assert contents(folder) == before


@pytest.mark.conformance("project-2")
def test_an_edited_file_is_never_overwritten(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declarations = folder / "site_operator" / "declarations.py"
    original = declarations.read_text()
    edited = original.replace("import Any\n", "import Any\n# mine\n")
    declarations.write_text(edited)
    before = contents(folder)
    assert add(folder, "kind", "example.com/v1/Page") == 1
    message = capsys.readouterr().err
    assert "site_operator/declarations.py was edited: make this change by hand" in message
    assert "+CONTROLLERS: list[AnyController] = [site_controller, page_controller]" in message
    assert message.endswith("nothing was written\n")
    assert contents(folder) == before

    # The change was made by hand in a file without the user's own: the command accepts it.
    other = make(tmp_path / "other")
    assert add(other, "kind", "example.com/v1/Page") == 0
    declarations.write_text((other / "site_operator" / "declarations.py").read_text())
    assert add(folder, "kind", "example.com/v1/Page") == 0
    assert add(folder, "webhook", "Page") == 0


def test_files_of_a_user_keep_their_content(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    api, webhook = folder / "site_operator" / "site" / "api.py", folder / "site_operator" / "site" / "webhook.py"
    api.write_text(api.read_text().replace("Desired state.", "What is wanted."))
    webhook.write_text('"""Mine."""\n')
    assert add(folder, "webhook", "Site") == 1
    assert "site_operator/site/webhook.py exists and has other content" in capsys.readouterr().err
    assert webhook.read_text() == '"""Mine."""\n'
    webhook.unlink()
    assert add(folder, "webhook", "Site") == 0
    assert "What is wanted." in api.read_text()


def test_an_interrupted_addition_can_be_repeated(folder: Path) -> None:
    record = (folder / RECORD).read_text()
    assert add(folder, "webhook", "Site") == 0
    complete = contents(folder)
    (folder / RECORD).write_text(record)  # it is written last
    (folder / "site_operator" / "site" / "webhook.py").unlink()
    assert add(folder, "webhook", "Site") == 0
    assert contents(folder) == complete


def test_files_of_an_earlier_version_of_the_templates_are_rewritten(folder: Path) -> None:
    declarations = folder / "site_operator" / "declarations.py"
    earlier = declarations.read_text().replace("What the operator", "What this operator")
    declarations.write_text(earlier)
    record = json.loads((folder / RECORD).read_text())
    record["digests"]["site_operator/declarations.py"] = sha256(earlier.encode()).hexdigest()
    (folder / RECORD).write_text(json.dumps(record))
    assert add(folder, "webhook", "Site") == 0
    assert "site_webhook" in declarations.read_text()


BAD_NAMES = [
    (["Site"], "name 'Site': use at most 40 lower-case letters, digits and `-`, beginning with a letter"),
    (["1site"], "name '1site': use at most 40"),
    (["a_b"], "name 'a_b': use at most 40"),
    (["n" * 41], "use at most 40"),
    (["json"], "name 'json': json is another Python package or a keyword; use json-operator"),
    (["import"], "import is another Python package or a keyword"),
    (["kaito"], "kaito is another Python package"),
    (["tests"], "tests is another Python package"),
    (["structlog"], "structlog is another Python package"),
    (["prometheus-client"], "prometheus_client is another Python package"),
    (["x", "--kind", "Site"], "kind 'Site': write GROUP/VERSION/KIND, for example example.com/v1/Site"),
    (["x", "--kind", "a.b/v1/Site/x"], "write GROUP/VERSION/KIND"),
    (["x", "--kind", "local/v1/Site"], "group 'local': use a DNS name with a dot that you own"),
    (["x", "--kind", "A.b/v1/Site"], "group 'A.b': use a DNS name"),
    (["x", "--kind", "x.k8s.io/v1/Site"], "groups of k8s.io and kubernetes.io belong to Kubernetes"),
    (["x", "--kind", "a.b/1/Site"], "version '1': use a version such as v1, v1beta1 or v1alpha1"),
    (["x", "--kind", "a.b/v0/Site"], "version 'v0': use a version"),
    (["x", "--kind", "a.b/v1/site"], "kind 'site': use a singular word in CamelCase of at most 32 letters and digits"),
    (["x", "--kind", "a.b/v1/Café"], "kind 'Café': use a singular word"),
    (["x", "--kind", f"a.b/v1/{'A' * 33}"], "at most 32 letters"),
    (["x", "--kind", "a.b/v1/Request"], "kind 'Request': the framework has a class of this name; choose another"),
    (["x", "--kind", "a.b/v1/None"], "kind 'None': the framework has a class of this name"),
    (["x", "--kind", "a.b/v1/Site", "--plural", "Sites"], "plural 'Sites': use at most 63 lower-case letters"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_NAMES, ids=[" ".join(each[0])[:40] for each in BAD_NAMES])
def test_a_bad_name_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    name, *options = arguments
    options = options or ["--kind", "example.com/v1/Site"]
    assert tool("init", name, *options, "--directory", tmp_path / "new") == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_unless_it_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "file").write_text("mine")
    assert tool("init", "x", "--kind", "a.b/v1/Site", "--directory", folder) == 1
    assert f"{folder} exists: choose another name or another --directory" in capsys.readouterr().err
    assert tool("init", "x", "--kind", "a.b/v1/Site", "--directory", folder / "file") == 1
    assert [path.name for path in folder.iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    assert tool("init", "x", "--kind", "a.b/v1/Site", "--directory", tmp_path / "empty") == 0


def test_additions_that_cannot_be_made_name_the_remedy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {
        ("webhook", "Page"): "kind 'Page' is not in this project: choose from Site",
        ("conversion", "Site", "--version", "v1"): "version v1 of Site is the one that is stored",
        ("conversion", "Site", "--version", "latest"): "version 'latest': use a version such as v1",
        ("kind", "example.com/v2/Site"): "use `kaito-runtime add conversion`",
        ("kind", "example.com/v1/Site", "--plural", "sitez"): "is in this project with the plural sites",
    }
    before = contents(folder)
    for arguments, message in refused.items():
        assert add(folder, *arguments) == 1
        assert message in capsys.readouterr().err
    assert contents(folder) == before
    assert add(tmp_path, "webhook", "Site") == 1
    assert "call the command in a folder that `kaito-runtime init` has made" in capsys.readouterr().err
    (folder / RECORD).write_text('{"name": "../x", "kinds": [], "digests": {}}')
    assert add(folder, "webhook", "Site") == 1
    assert "is malformed, restore it from version control" in capsys.readouterr().err


def test_kinds_never_share_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add(folder, "kind", "example.com/v1/SiteWebhook") == 0
    before = contents(folder)
    assert add(folder, "webhook", "Site") == 1
    assert "tests/test_site_webhook.py is a file of another part of the project" in capsys.readouterr().err
    assert contents(folder) == before
    (folder / RECORD).write_text('{"name": "site-operator", "kinds": [], "digests": {}}')
    assert add(folder, "kind", "example.com/v1/Page") == 1
    assert "is malformed" in capsys.readouterr().err


def test_names_are_derived_as_people_write_them() -> None:
    assert [plural_of(kind) for kind in ("Site", "Proxy", "Gateway", "Class", "Batch", "Y")] == [
        "sites",
        "proxies",
        "gateways",
        "classes",
        "batches",
        "ys",
    ]
    assert [module_of(kind) for kind in ("Site", "HTTPRoute", "CronJob", "Class", "Chart")] == [
        "site",
        "http_route",
        "cron_job",
        "class_kind",
        "chart_kind",
    ]
    assert [variable_of(kind) for kind in ("Site", "Filter", "Status")] == ["site", "filter_object", "status_object"]
