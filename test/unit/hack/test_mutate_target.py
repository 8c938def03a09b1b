"""`make mutate PACKAGE=…` finds the sources, their names on import, and their tests."""

import pytest

from hack.mutate.target import ROOT, find


@pytest.mark.parametrize(
    ("package", "file", "module", "workdir"),
    [
        ("models", "kaito/models/sizing.py", "kaito.models.sizing", ""),
        ("cloud/azure", "kaito/cloud/azure/errors.py", "kaito.cloud.azure.errors", ""),
        ("presets/oci", "presets/oci/src/kaito_oci/registry.py", "kaito_oci.registry", "presets"),
        ("presets/config", "presets/config/src/kaito_config/vllm.py", "kaito_config.vllm", "presets"),
        ("presets/config", "presets/config/src/kaito_config/__init__.py", "kaito_config", "presets"),
        ("presets/vllm", "presets/src/kaito_presets/vllm/proxy.py", "kaito_presets.vllm.proxy", "presets"),
        (
            "presets/inference/backend",
            "presets/src/kaito_presets/inference/backend/plan.py",
            "kaito_presets.inference.backend.plan",
            "presets",
        ),
    ],
)
def test_a_package_has_its_sources_under_the_names_that_tests_import(
    package: str, file: str, module: str, workdir: str
) -> None:
    target = find(package, files=[], exclude=[], tests=[])
    assert ROOT / file in target.sources
    assert target.module_name(file) == module
    assert target.workdir == ROOT / workdir
    assert all(path.exists() for path in target.tests)
    assert target.configuration[:2] == ("-c", str(ROOT / workdir / "pyproject.toml"))


@pytest.mark.parametrize(("package", "markers"), [("models", "not real and not slow"), ("presets/oci", "not real")])
def test_slow_tests_are_left_out_where_the_marker_is_known(package: str, markers: str) -> None:
    target = find(package, files=[], exclude=[], tests=[])
    assert target.configuration[2:] == ("--rootdir", str(ROOT), "-m", markers)
    assert target.pytest_arguments == (*target.configuration, *map(str, target.tests))


@pytest.mark.parametrize("package", ["nothing", "presets/nothing", "presets/oci/nothing"])
def test_an_unknown_package_is_refused(package: str) -> None:
    with pytest.raises(SystemExit, match="neither a package nor a module"):
        find(package, files=[], exclude=[], tests=[])
