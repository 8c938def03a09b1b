"""Generate the protobuf field numbers of built-in types for `kaito.apiserver` from Kubernetes' `generated.proto` files.

Run `python -m hack.kubernetes.protobuf_fields`; it needs Go to fetch the modules. kubectl's typed commands (`create
configmap`, `auth can-i`) send protobuf, so the server has to read it; it never writes any. The result is
`kaito/apiserver/data/protobuf-fields.json`: message -> [number, name, type, mode], mode being "", "repeated", "map" or
"inline".
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from kaito.apiserver.registry.builtin_schemas import definitions  # noqa: E402 - the path is set above

TARGET = ROOT / "kaito" / "apiserver" / "data" / "protobuf-fields.json"
VERSION = "v0.35.4"
MODULES = ("k8s.io/api", "k8s.io/apimachinery", "k8s.io/apiextensions-apiserver")
MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^  (?:optional |(repeated )|)(?:map<string, ([\w.]+)>|([\w.]+)) (\w+) = (\d+);", re.MULTILINE)
SPECIAL = {
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "microtime",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intstr",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "raw",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "raw",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "raw",
}


def module_folder(module: str) -> Path:
    """Returns the folder of a module, downloaded by Go."""
    command = ["go", "mod", "download", "-json", f"{module}@{VERSION}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(json.loads(done.stdout)["Dir"])


def definition_name(name: str) -> str:
    """Returns the OpenAPI name of a protobuf message."""
    return (
        name.lstrip(".").replace("k8s.io.", "io.k8s.", 1).replace("apiextensions_apiserver", "apiextensions-apiserver")
    )


def resolved(name: str, package: str) -> str:
    """Returns a field's type: a scalar, a special type, or the OpenAPI name of a message."""
    if name in {"string", "int32", "int64", "bool", "bytes", "double", "uint32", "uint64"}:
        return name
    full = definition_name(name if "." in name else f"{package}.{name}")
    return SPECIAL.get(full, full)


def main() -> None:
    """Writes the file."""
    messages: dict[str, list[list[object]]] = {}
    for module in MODULES:
        for path in sorted(module_folder(module).rglob("generated.proto")):
            text = path.read_text()
            package = re.search(r"^package ([\w.]+);", text, re.MULTILINE)
            if package is None:
                continue
            for message in MESSAGE.finditer(text):
                name = definition_name(f"{package[1]}.{message[1]}")
                schema = definitions().get(name)
                known = set((schema or {}).get("properties", ()))
                fields: list[list[object]] = []
                for repeated, value, kind, field, number in FIELD.findall(message[2]):
                    mode = "repeated" if repeated else ("map" if value else "")
                    if (
                        schema is not None
                        and field not in known
                        and not mode
                        and resolved(kind, package[1]).startswith("io.")
                    ):
                        mode = "inline"
                    fields.append([int(number), field, resolved(value or kind, package[1]), mode])
                messages[name] = fields
    wanted, found = [name for name in messages if name in definitions()], {}
    while wanted:
        name = wanted.pop()
        if name in messages and name not in found:
            found[name] = messages[name]
            wanted += [str(field[2]) for field in messages[name]]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
    TARGET.write_text(f"{{\n{lines}\n}}\n")
    print(f"{TARGET.name}: {len(found)} messages, {TARGET.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
