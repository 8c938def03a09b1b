"""The public face of the framework: what it exports, what it costs to import, which names of users stay cheap."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

import kaito.runtime
from kaito.runtime import testing

EXPORTED_AT_MOST = 25
IMPORT_SECONDS_AT_MOST = 0.3


def _in_new_process(*lines: str) -> str:
    code = "\n".join(lines)
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def _modules_after(statement: str) -> Sequence[str]:
    names: list[str] = json.loads(
        _in_new_process(statement, "import json, sys", "print(json.dumps(sorted(sys.modules)))")
    )
    return names


def test_few_names_are_exported_and_all_of_them_exist() -> None:
    assert len(kaito.runtime.__all__) <= EXPORTED_AT_MOST
    assert kaito.runtime.__all__ == sorted(kaito.runtime.__all__)
    for name in kaito.runtime.__all__:
        exported = getattr(kaito.runtime, name)
        assert exported.__name__ == name or name == "Quantity", name
        assert exported.__doc__, name


def test_the_tour_mentions_every_exported_name() -> None:
    tour = kaito.runtime.__doc__ or ""
    assert [name for name in kaito.runtime.__all__ if name not in tour] == []


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(kaito.runtime, "Informer")
    assert not hasattr(testing, "FakeClient")


def test_testing_exports_exist() -> None:
    for name in ("World", "InMemoryTransport", "VirtualTimeLoop", "workloads", "node", "pod", "Deadlock"):
        assert getattr(testing, name)


@pytest.mark.conformance("client-11")
def test_the_import_is_quick_and_loads_no_generated_models() -> None:
    everything = "from kaito.runtime import " + ", ".join(kaito.runtime.__all__)
    timed = [
        float(
            _in_new_process(
                "import time", "t = time.perf_counter()", "import kaito.runtime", "print(time.perf_counter() - t)"
            )
        )
        for _ in range(3)
    ]
    assert min(timed) < IMPORT_SECONDS_AT_MOST
    loaded = _modules_after(everything)
    assert [name for name in loaded if name.startswith("kubernetes_asyncio.client.models")] == []
    assert [name for name in loaded if name.startswith(("kaito.apiserver", "kaito.runtime.testing"))] == []


def test_data_types_do_not_load_the_network() -> None:
    loaded = _modules_after("from kaito.runtime import Model, Resource, Condition")
    assert "aiohttp" not in loaded


def test_an_api_module_with_its_webhooks_and_crd_does_not_load_the_network() -> None:
    """`python -m memcached_operator.api` prints manifests; it should not take the time of a server's start."""
    loaded = _modules_after("from kaito.runtime.crd import crd; from kaito.runtime.webhook import Conversion, Webhook")
    assert "aiohttp" not in loaded
    assert "kubernetes_asyncio" not in loaded
