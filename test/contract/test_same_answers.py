"""The same requests to both servers get the same answers: codes, bodies, messages, managed fields, warnings.

`scenarios/*.yaml` hold the requests. What cannot be equal is replaced by names: uids and resource versions in order of
appearance (so that equality among them still counts), times and addresses by a placeholder. `LOOSE` lists the few texts
that repeat the internals of Go and are compared by their beginning only.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kaito.apiserver.wire import is_list, is_object

if TYPE_CHECKING:
    from test.contract.conftest import Server

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.yaml"))
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOOSE = {
    "json parse error": 60,  # the words of Go's JSON decoder
    "error decoding patch": 20,
    "continue key is not valid": 30,
    "Object 'Kind' is missing": 40,
    "compilation failed": 0,  # the words of cel-go's parser
    "pod updates may not change": 60,  # the real message ends with a diff of Go structs
    "spec.template: Invalid value": 20,  # prints a Go struct
    "Available representations": 20,
}
IGNORED = {"storageVersionHash", "time"}


class Names:
    """Gives each distinct value of a kind a name in order of appearance."""

    def __init__(self, namespace: str) -> None:
        self._seen: dict[tuple[str, str], str] = {}
        self._namespace = namespace

    def name(self, kind: str, value: str) -> str:
        count = sum(seen == kind for seen, _ in self._seen)
        return self._seen.setdefault((kind, value), f"<{kind} {count}>")

    def plain(self, value: Any, key: str = "") -> Any:
        """Returns a value with everything that differs by nature replaced."""
        if is_object(value):
            return {name: self.plain(value[name], name) for name in sorted(value) if name not in IGNORED}
        if is_list(value):
            return self._list(value, key)
        return self._text(value, key) if isinstance(value, str) else value

    def _list(self, value: list[Any], key: str) -> list[Any]:
        if key == "clusterIPs" and value != ["None"]:
            return ["<address>"]
        items = [self.plain(item) for item in value]
        if key in {"causes", "managedFields"}:
            # Their order follows Go's maps and the second in which things happened.
            unique = {json.dumps(item, sort_keys=True) for item in items}
            return [json.loads(item) for item in sorted(unique)]
        return items

    def _text(self, value: str, key: str) -> str:
        if key == "uid":
            return self.name("uid", value)
        if key == "resourceVersion" and value:
            return self.name("rv", value)
        if key == "clusterIP" and value != "None":
            return "<address>"
        text = UID.sub("<uid>", TIME.sub("<time>", value.replace(self._namespace, "{ns}")))
        text = re.sub(r"\bg-[a-z0-9]{5}\b", "g-xxxxx", text)
        text = re.sub(r"^\d+s$", "<age>", text)
        text = re.sub(r"(current: |in record \()\d+", r"\g<1>N", text)
        for words, kept in LOOSE.items():
            if words in text:
                return text[:kept] + words
        return "Invalid value: {" if text.startswith("Invalid value: {") else text


def fill(value: Any, namespace: str) -> Any:
    """Returns a step with its namespace and API group filled in."""
    text = json.dumps(value).replace("{ns}", namespace).replace("{g}", f"{namespace}.example.com")
    return json.loads(text)


async def play(server: Server, steps: list[dict[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """Sends the requests of a scenario and returns the comparable answers."""
    await server.ok("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    names, answers = Names(namespace), list[dict[str, Any]]()
    for raw in steps:
        step = fill(raw, namespace)
        if "wait" in step:
            await served(server, step["wait"])
            continue
        method, path = step["send"].split(" ", 1)
        body = step["text"].encode() if "text" in step else step.get("body")
        content = step.get("content", "application/json")
        answer = await server.call(method, path, body, content, step.get("headers"), **step.get("query", {}))
        answers.append(
            {
                "request": raw["send"],
                "status": answer.status,
                "warnings": sorted(re.findall(r'299 - "(?:\\.|[^"\\])*"', ", ".join(answer.warnings))),
                "retry-after": answer.headers.get("retry-after"),
                "body": names.plain(answer.body),
            }
        )
    return answers


async def served(server: Server, path: str) -> None:
    """Waits until a new custom resource is served."""
    for _ in range(100):
        if (await server.call("GET", path)).status == 200:
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)  # a real server starts to serve and to validate at slightly different moments


@pytest.mark.real
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
async def test_both_servers_answer_alike(scenario: Path, memory: Server, real: Server) -> None:
    steps = yaml.safe_load(await asyncio.to_thread(scenario.read_text))
    namespace = f"s-{memory.namespace}"
    expected = await play(real, steps, namespace)
    answered = await play(memory, steps, namespace)
    for ours, theirs in zip(answered, expected, strict=True):
        assert ours == theirs
