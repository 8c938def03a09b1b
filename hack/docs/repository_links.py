"""mkdocs hook: links from a page to files outside `docs/` lead to the repository.

Pages link to examples, manifests and tests with relative paths, so that the links also work in a checkout and on a code
host. mkdocs only knows files below `docs/`; this hook replaces those links with addresses below `repo_url`, and fails
the build if a file does not exist.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

LINK = re.compile(r"(?P<text>\[[^\]\n]*\])\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"(^ *```.*?^ *```$)", flags=re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Replaces the links of one page."""
    docs = Path(config["docs_dir"]).resolve()
    folder = Path(page.file.abs_src_path).resolve().parent

    def replace(match: re.Match[str]) -> str:
        path, hash_sign, anchor = match["target"].partition("#")
        if not path or "://" in path or path.startswith(("mailto:", "/")):
            return match[0]
        file = (folder / path).resolve()
        if file.is_relative_to(docs):
            return match[0]
        if not file.exists() or not file.is_relative_to(docs.parent):
            message = f"{page.file.src_uri}: the link {match['target']} leads to a file that does not exist"
            raise PluginError(message)
        view = "tree" if file.is_dir() else "blob"
        address = f"{config['repo_url'].rstrip('/')}/{view}/main/{file.relative_to(docs.parent).as_posix()}"
        return f"{match['text']}({address}{hash_sign}{anchor})"

    parts = FENCE.split(markdown)
    return "".join(part if number % 2 else LINK.sub(replace, part) for number, part in enumerate(parts))
