"""Generate the printer columns of built-in types for `kaito.apiserver` from a real kube-apiserver.

Run `python -m hack.kubernetes.columns`; it starts the control plane of `hack.envtest`, requests an empty `Table` of
every built-in type and writes `kaito/apiserver/data/builtin-columns.json`.
"""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path

from hack.envtest import ControlPlane
from kaito.apiserver.registry.builtin import BUILTIN

TARGET = Path(__file__).resolve().parents[2] / "kaito" / "apiserver" / "data" / "builtin-columns.json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def main() -> None:
    """Writes the file."""
    found: dict[str, object] = {}
    with ControlPlane() as plane:
        context = ssl.create_default_context(cafile=str(plane.ca_file))
        for row in BUILTIN:
            if "list" not in row.verbs or row.storage in found:
                continue
            root = f"/apis/{row.group}/{row.version}" if row.group else f"/api/{row.version}"
            headers = {"Authorization": f"Bearer {plane.token}", "Accept": TABLE}
            request = urllib.request.Request(f"{plane.url}{root}/{row.plural}", headers=headers)
            with urllib.request.urlopen(request, context=context) as answer:
                found[row.storage] = json.load(answer)["columnDefinitions"]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    TARGET.write_text(f"{{\n{lines}\n}}\n")
    print(f"{TARGET.name}: {len(found)} types, {TARGET.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
