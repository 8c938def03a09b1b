"""`kaito plan --cluster` with names that do not exist: they are refused before the cluster is read."""

from typing import Any

import pytest

from kaito.api import Workspace
from kaito.runtime.errors import Forbidden
from kaito.runtime.testing import World
from test.unit.cli.test_plan import A100, compare, compare_all, workspace


def selected(**fields: Any) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": {"apps": "w"}}, **fields}


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"inference": {"preset": {"name": "phi-5-typo"}}}, "inference.preset.name"),
        ({"resource": selected(instanceType="Standard_NC6s_v33")}, "resource.instanceType"),
        ({"resource": selected(instanceTypes=["Standard_NC6s_v33", "nothing"])}, "resource.instanceTypes[0]"),
    ],
)
async def test_wrong_names_are_refused_before_the_cluster_is_read(
    live: World, part: dict[str, Any], field: str
) -> None:
    """A user without rights sees the error of the file, not that of the permissions."""
    live.deny("get", Workspace)
    with pytest.raises(Forbidden):
        await compare(workspace())
    live.clear_requests()
    data = await compare(workspace(**part))
    assert data["result"] == "refused"
    assert data["errors"][0]["field"] == field
    assert all("deployments" in request.path for request in live.requests)


async def test_without_a_preset_that_exists_the_cluster_is_not_connected(live: World) -> None:
    await compare_all(*(workspace(name, inference={"preset": {"name": "phi-5-typo"}}) for name in "ab"))
    assert live.requests == []
    await compare_all(workspace(), workspace("b", inference={"preset": {"name": "phi-5-typo"}}))
    assert live.requests != []


async def test_an_alternative_that_does_not_exist_is_skipped_and_the_cluster_is_read(live: World) -> None:
    data = await compare(workspace(resource=selected(instanceTypes=["Standard_NC6s_v33", A100])))
    assert data["result"] == "planned"
    assert live.requests != []
