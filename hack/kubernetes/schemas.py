"""Generate the schemas of built-in types for `kaito.apiserver` from the OpenAPI documents of a Kubernetes release.

Run `python -m hack.kubernetes.schemas`; it needs Go to fetch the module `k8s.io/kubernetes` (whose zip
carries `api/openapi-spec/v3`) and writes `kaito/apiserver/data/builtin-schemas.json`, one definition a line.
Descriptions are cut to their first sentence: they are there for `kubectl explain`, not as documentation.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kaito.apiserver.registry.builtin import BUILTIN  # noqa: E402 - the path is set above

VERSION = "v1.35.4"
TARGET = ROOT / "kaito" / "apiserver" / "data" / "builtin-schemas.json"
REF = "#/components/schemas/"
ALWAYS = (
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.policy.v1.Eviction",
)


def module_folder() -> Path:
    """Returns the folder of the Kubernetes module, downloaded by Go."""
    command = ["go", "mod", "download", "-json", f"k8s.io/kubernetes@{VERSION}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(json.loads(done.stdout)["Dir"])


def document(folder: Path, group: str, version: str) -> dict[str, Any]:
    """Returns the definitions of one group version."""
    name = f"apis__{group}__{version}" if group else f"api__{version}"
    path = folder / "api" / "openapi-spec" / "v3" / f"{name}_openapi.json"
    return json.loads(path.read_text())["components"]["schemas"]


def shortened(value: Any) -> Any:
    """Returns a schema with descriptions of one sentence."""
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if not isinstance(value, dict):
        return value
    short = {}
    for key, item in value.items():
        if key == "description" and isinstance(item, str):
            short[key] = re.split(r"(?<=[a-z)\]`\"'])\.(?:\s|$)", item, maxsplit=1)[0].rstrip(".") + "."
        elif key != "x-kubernetes-unions":
            short[key] = shortened(item)
    return short


def references(value: Any) -> set[str]:
    """Returns the names of the definitions that a schema refers to."""
    if isinstance(value, list):
        return set().union(*(references(item) for item in value), set())
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"].removeprefix(REF)} if isinstance(value.get("$ref"), str) else set()
    return own.union(*(references(item) for item in value.values()), set())


def main() -> None:
    """Writes the file."""
    folder = module_folder()
    groups = sorted({(kind.group, kind.version) for kind in BUILTIN} | {("autoscaling", "v1"), ("policy", "v1")})
    definitions: dict[str, Any] = {}
    for group, version in groups:
        definitions |= document(folder, group, version)
    served = {(kind.group, kind.version, kind.kind) for kind in BUILTIN}
    wanted = [
        name
        for name, schema in definitions.items()
        if any(
            (gvk["group"], gvk["version"], gvk["kind"]) in served
            for gvk in schema.get("x-kubernetes-group-version-kind", ())
        )
    ] + list(ALWAYS)
    found: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = shortened(definitions[name])
            wanted += references(found[name])
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(found[name], sort_keys=True)}" for name in sorted(found))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(f"{{\n{lines}\n}}\n")
    print(f"{TARGET.relative_to(ROOT)}: {len(found)} definitions, {TARGET.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
