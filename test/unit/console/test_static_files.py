"""The files for the browser: pinned libraries, relative imports, nothing that the Content-Security-Policy forbids."""

import re
from pathlib import Path

import pytest

from hack.console_vendor import IMPORTS, PACKAGES, SUMS, VENDOR, VendorError, browser_module, sums

STATIC = VENDOR.parent
SCRIPTS = sorted((STATIC / "app").rglob("*.js"))
STYLES = sorted((STATIC / "style").glob("*.css"))


def test_the_libraries_have_the_recorded_digests() -> None:
    """`python -m hack.console_vendor --check` compares the same files with the registry."""
    present = {path.name: path.read_bytes() for path in VENDOR.iterdir()}
    assert sums(present) == (VENDOR / SUMS).read_text()


def test_each_library_has_its_pinned_version_and_license() -> None:
    recorded = (VENDOR / "VERSIONS").read_text().splitlines()
    assert recorded == [f"{package.name} {package.version} {package.integrity}" for package in PACKAGES]
    names = {name for package in PACKAGES for name in package.files.values()} | {"VERSIONS", SUMS}
    assert {path.name for path in VENDOR.iterdir()} == names
    assert all(any(name.startswith("LICENSE") for name in package.files.values()) for package in PACKAGES)


def test_imports_of_a_library_become_relative() -> None:
    source = b'import{h}from"preact";import{useRef}from"preact/hooks";export{h}from"@preact/signals-core";'
    module = browser_module(source + b"\n//# sourceMappingURL=x.mjs.map\n")
    assert re.findall(rb'from"([^"]+)"', module) == [
        b"./preact.js",
        b"./hooks.js",
        b"./signals-core.js",
    ]
    assert b"sourceMappingURL" not in module


def test_an_import_of_an_unknown_package_is_refused() -> None:
    with pytest.raises(VendorError, match="'left-pad': add the package"):
        browser_module(b'import x from"left-pad";')


@pytest.mark.parametrize("script", [*SCRIPTS, *sorted(VENDOR.glob("*.js"))], ids=lambda path: path.name)
def test_every_import_is_a_file(script: Path) -> None:
    targets = re.findall(r'(?:from\s*|import\s*)"([^"]+)"', script.read_text())
    missing = [target for target in targets if not (script.parent / target).is_file()]
    assert missing == []
    assert not set(targets) & IMPORTS.keys()


def test_every_script_is_reachable_from_the_page() -> None:
    page = (STATIC / "index.html").read_text()
    found = {(STATIC / source).resolve() for source in re.findall(r'(?:src|href)="\./([^"]+\.js)"', page)}
    waiting = list(found)
    while waiting:
        script = waiting.pop()
        for target in re.findall(r'from "([^"]+)"', script.read_text()):
            path = (script.parent / target).resolve()
            if path not in found:
                found.add(path)
                waiting.append(path)
    assert set(SCRIPTS) <= found


def test_the_page_has_no_inline_script_or_style() -> None:
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)", page) == []
    assert "<style" not in page
    assert " style=" not in page
    assert re.findall(r"\son\w+=", page) == []
    for path in re.findall(r'(?:src|href)="\./([^"]+)"', page):
        assert (STATIC / path).is_file(), path


@pytest.mark.parametrize("path", [*SCRIPTS, *STYLES, STATIC / "index.html"], ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text()))
    assert hosts <= {"example.com"}  # the placeholder of an input


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_begins_with_its_purpose(script: Path) -> None:
    assert script.read_text().startswith("// ")
    assert "innerHTML" not in script.read_text()
    assert script.read_text().count("\n") <= 350
