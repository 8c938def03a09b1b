"""Large lists of a real API server are compressed on the way; small ones and writes are not."""

import pytest

from hack.envtest import ControlPlane
from kaito.runtime import Client, ObjectMeta
from kaito.runtime.client.connect import find_cluster_config
from kaito.runtime.client.http import HttpTransport
from kaito.runtime.kinds import ConfigMap

pytestmark = pytest.mark.real


@pytest.mark.conformance("client-gzip")
async def test_a_large_list_is_compressed_and_complete(control_plane: ControlPlane) -> None:
    transport = HttpTransport(await find_cluster_config(control_plane.kubeconfig))
    try:
        client = Client(transport, field_manager="test")
        text = "x" * 100_000
        for number in range(3):
            made = ConfigMap(metadata=ObjectMeta(name=f"large-{number}", namespace="default"), data={"text": text})
            reply = await client.apply(made)
            assert reply.data["text"] == text
        target = "/api/v1/namespaces/default/configmaps"
        large = await transport.request("GET", target)
        assert large.headers["content-encoding"] == "gzip"
        assert len(large.body) > 300_000
        assert [each.data["text"] == text for each in await client.list(ConfigMap, namespace="default")] == [True] * 3
        small = await transport.request("GET", "/api/v1/namespaces/default")
        assert "content-encoding" not in small.headers
        async with transport.stream("GET", f"{target}?watch=1&timeoutSeconds=1") as watch:
            assert "content-encoding" not in watch.headers
        await client.delete_all(ConfigMap, namespace="default", labels=None)
    finally:
        await transport.close()
