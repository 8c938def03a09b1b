"""Every python block of the documentation is executed, page by page, in virtual time.

Blocks of a page run in order and share their names; `await` is allowed at the top level. Blocks with a title are files
(`test_tutorial` compares them), blocks flagged `kopf` are another framework's code and only have to parse.
"""

import ast
import inspect
import linecache
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import kaito.runtime
from kaito.runtime import Resource, kinds
from test.support.codeblocks import CodeBlock, code_blocks

ROOT = Path(__file__).resolve().parents[2]
OTHER_FRAMEWORKS = {"kopf"}
LANGUAGES = {"", "cel", "dockerfile", "go", "json", "promql", "python", "sh", "text", "toml", "yaml"}


def _pages() -> list[Path]:
    folders = (ROOT / "docs", ROOT / "examples")
    return [*sorted(ROOT.glob("*.md")), *(page for folder in folders for page in sorted(folder.rglob("*.md")))]


PAGES = _pages()
"""Every page, by its path."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _python(page: Path) -> list[CodeBlock]:
    return [block for block in code_blocks(page) if block.language == "python"]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_blocks_are_tagged_with_a_language_and_flags_that_mean_something(page: Path) -> None:
    for block in code_blocks(page):
        assert block.language in LANGUAGES, f"{block}: {block.language}"
        allowed = OTHER_FRAMEWORKS if block.language == "python" else set[str]()
        assert set(block.flags) <= allowed, f"{block}: {block.flags}"


@pytest.mark.parametrize("page", [page for page in PAGES if _python(page)], ids=_name)
@pytest.mark.virtual_time
async def test_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    module.__file__ = f"{page}:python"
    lines: list[str] = []
    for block in _python(page):
        if block.title or set(block.flags) & OTHER_FRAMEWORKS:
            ast.parse(block.code)
            continue
        lines += ["\n"] * (block.line - 1 - len(lines)) + block.code.splitlines(keepends=True)
        # Tracebacks name the lines of the page, and pydantic finds the docstrings of fields.
        linecache.cache[module.__file__] = (0, None, lines, module.__file__)
        source = "\n" * (block.line - 1) + block.code
        code = compile(source, module.__file__, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        pending = eval(code, vars(module))
        if inspect.isawaitable(pending):
            await pending


def test_the_framework_has_a_page_for_every_seam() -> None:
    there = {page.stem for page in PAGES if page.parent.name == "framework"}
    linked = (ROOT / "docs" / "framework" / "index.md").read_text()
    assert there >= {"tutorial", "testing", "limits", "crds"}
    assert [page for page in sorted(there - {"index"}) if f"({page}.md)" not in linked] == []


def test_names_are_where_the_index_says() -> None:
    index = (ROOT / "docs" / "framework" / "index.md").read_text()
    rows = re.findall(r"^\| (.+) \| `(kaito[\w.]*)` \|$", index, flags=re.MULTILINE)
    assert len(rows) > 8
    for names, home in rows:
        for name in re.findall(r"`([A-Za-z]\w+)`", names):
            assert hasattr(import_module(home), name), f"{home} has no {name}"
    assert f"every operator uses, {len(kaito.runtime.__all__)} names" in index


def test_every_built_in_kind_is_in_the_table_of_kinds() -> None:
    page = (ROOT / "docs" / "framework" / "objects-and-kinds.md").read_text()
    cells = re.findall(r"^\| (?:core|`[\w.]+`) \| (.+) \|$", page, flags=re.MULTILINE)
    received = sorted(name for cell in cells for name in cell.split(", "))
    every = [getattr(kinds, name) for name in dir(kinds)]
    models = [kind for kind in every if isinstance(kind, type) and issubclass(kind, Resource)]
    assert received == sorted(kind.kind for kind in models if kind.kind)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in _links(text):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{_name(page)}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file.read_text(encoding="utf-8")), f"{_name(page)}: {target}"


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    listed = re.findall(r"([\w./-]+\.md)$", navigation, flags=re.MULTILINE)
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


def test_links_to_the_repository_lead_somewhere() -> None:
    readmes = [*(ROOT / "kaito").rglob("README.md"), *(ROOT / "presets").glob("*/README.md"), *PAGES]
    named = {
        (str(page.relative_to(ROOT)), path)
        for page in readmes
        for path in re.findall(r"kaito-project/kaito/(?:blob|tree)/main/([\w./-]+)", page.read_text(encoding="utf-8"))
    }
    assert named
    assert sorted((page, path) for page, path in named if not (ROOT / path).exists()) == []


def _links(text: str) -> list[str]:
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = re.findall(r"\[[^\]\n]*\]\(([^)\s]+)\)", outside)
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
