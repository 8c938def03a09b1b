"""Writes manifests as YAML, deterministically, for generators whose output is committed."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Dumper with block style, literal blocks for multi-line text, indented lists and without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- yaml's hook
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 -- yaml's hook
        super().increase_indent(flow, False)  # noqa: FBT003 -- yaml's signature


def _text(_: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return yaml.ScalarNode("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def to_yaml(*manifests: Mapping[str, Any], header: Iterable[str] = ()) -> str:
    """Returns YAML documents separated by `---`; `header` lines become comments at the top. Keys keep their order."""
    documents = [
        yaml.dump(dict(manifest), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
        for manifest in manifests
    ]
    return "".join(f"# {line}\n" for line in header) + "---\n".join(documents)
