"""Upgrades to a new release of the controller: held, permitted in a window, in place or by replacement."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from kaito.api import Workspace
from kaito.runtime.kinds import StatefulSet
from kaito.workspace.settings import WorkspaceSettings

if TYPE_CHECKING:
    from test.unit.workspace.inference_sets.conftest import Sets

OLD, NEW = "registry.example/serving:1", "registry.example/serving:2"
NIGHTLY: dict[str, Any] = {"schedule": "0 2,5 * * *", "duration": "1h"}


def release(image: str) -> WorkspaceSettings:
    """Returns the settings of a controller whose pods have this image."""
    return WorkspaceSettings(serving_image=image, vllm_image=image)


def image_of(sets: "Sets", name: str) -> str:
    containers = sets.world.get(StatefulSet, name).spec.template.to_dict()["spec"]["containers"]
    return str(containers[0]["image"])


def images(sets: "Sets") -> list[str]:
    return [image_of(sets, name).rpartition(":")[2] for name in sets.names()]


async def until_hour(sets: "Sets", hour: float) -> None:
    """Advances the time to an hour of the day, in UTC."""
    now = sets.world.now.astimezone(UTC)
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    seconds = hour * 3600 - (now - midnight).total_seconds()
    await sets.world.advance(seconds if seconds > 0 else seconds + 86400)


async def serve_with(sets: "Sets", image: str, **spec: Any) -> None:
    """Runs an old release until the set serves."""
    sets.put(**spec)
    async with sets.controller(release(image)):
        await sets.provision()
        assert sets.condition()[0] == "True"


async def test_a_new_release_does_not_restart_the_pods_of_a_set(sets: "Sets") -> None:
    await serve_with(sets, OLD)
    async with sets.controller(release(NEW)):
        await sets.world.advance(900)
        assert images(sets) == ["1", "1"]
        assert sets.condition()[0] == "True"
        status, _, message = sets.condition("InferenceSetUpdated")
        assert status == "True"
        assert "2 have the pods of an earlier release: set spec.autoUpgrade.enabled" in message
        assert sets.current().status.auto_upgrade is None

        sets.change({"template": {"inference": {"preset": {"podOptions": {"env": [{"name": "A", "value": "1"}]}}}}})
        await sets.provision()
        await sets.provision()
        assert images(sets) == ["2", "2"], "a change of the template takes the new release"


async def test_a_workspace_without_a_set_follows_the_release_at_once(sets: "Sets", phi: Workspace) -> None:
    sets.apply(phi)
    async with sets.controller(release(OLD)):
        await sets.until_serving()
    async with sets.controller(release(NEW)):
        await sets.world.settle()
        assert image_of(sets, phi.name) == NEW


async def test_upgrades_in_place_wait_for_the_window_and_for_each_other(sets: "Sets") -> None:
    await serve_with(sets, OLD, autoUpgrade={"enabled": True, "maintenanceWindow": NIGHTLY})
    await until_hour(sets, 1)
    async with sets.controller(release(NEW)):
        await sets.world.advance(1800)
        assert images(sets) == ["1", "1"]
        upgrade = sets.current().status.auto_upgrade
        assert upgrade is not None
        assert upgrade.num_drifted_workspaces == 2
        assert "they are upgraded at" in sets.condition("InferenceSetUpdated")[2]

        await until_hour(sets, 2)
        await sets.world.settle()
        assert images(sets) == ["2", "1"]
        sets.unready("phi-0")
        await sets.world.advance(600)
        assert images(sets) == ["2", "1"], "waits for the first one"
        await sets.provision()
        await sets.provision()
        assert images(sets) == ["2", "2"]
        upgrade = sets.current().status.auto_upgrade
        assert upgrade is not None
        assert upgrade.num_drifted_workspaces == 0
        assert upgrade.last_successful_upgrade_time is not None
        assert {"UpgradeCompleted"} <= {event.reason for event in sets.world.events()}
        assert sets.names() == ["phi-0", "phi-1"]


@pytest.mark.slow("test_upgrades_in_place_wait_for_the_window_and_for_each_other")
async def test_an_upgrade_that_does_not_start_in_the_window_waits_for_the_next_one(sets: "Sets") -> None:
    await serve_with(sets, OLD, autoUpgrade={"enabled": True, "maintenanceWindow": NIGHTLY})
    await until_hour(sets, 2.1)
    async with sets.controller(release(NEW)):
        await sets.world.settle()
        sets.unready("phi-0")
        await until_hour(sets, 3.5)
        await sets.provision()
        assert images(sets) == ["2", "1"], "the window has closed"
        await until_hour(sets, 5.5)
        await sets.provision()
        assert images(sets) == ["2", "2"]


@pytest.mark.slow("test_without_a_window_upgrades_start_at_once")
async def test_a_surge_upgrade_replaces_workspaces_and_may_end_after_the_window(sets: "Sets") -> None:
    surge = {"enabled": True, "strategy": "Surge", "maintenanceWindow": NIGHTLY}
    await serve_with(sets, OLD, autoUpgrade=surge)
    await until_hour(sets, 2.5)
    async with sets.controller(release(NEW)):
        await sets.world.settle()
        assert sets.names() == ["phi-0", "phi-1", "phi-2"]
        await until_hour(sets, 3.5)
        await sets.provision()
        assert len(sets.names()) == 2, "the replacement that has begun ends"
        assert sorted(images(sets)) == ["1", "2"]
        await sets.world.advance(600)
        assert sorted(images(sets)) == ["1", "2"], "the next one waits for the window"
        await until_hour(sets, 5.5)
        for _ in range(3):
            await sets.provision()
        assert images(sets) == ["2", "2"]


async def test_without_a_window_upgrades_start_at_once(sets: "Sets") -> None:
    await serve_with(sets, OLD, autoUpgrade={"enabled": True})
    async with sets.controller(release(NEW)):
        for _ in range(3):
            await sets.provision()
        assert images(sets) == ["2", "2"]


async def test_a_restart_in_the_middle_of_an_upgrade_continues_it(sets: "Sets") -> None:
    await serve_with(sets, OLD, replicas=3, autoUpgrade={"enabled": True})
    async with sets.controller(release(NEW)):
        await sets.world.settle()
        assert images(sets) == ["2", "1", "1"]
    async with sets.controller(release(NEW)):
        for _ in range(3):
            await sets.provision()
        assert images(sets) == ["2", "2", "2"]


async def test_an_edited_configuration_takes_the_new_release(sets: "Sets") -> None:
    await serve_with(sets, OLD, replicas=1)
    async with sets.controller(release(NEW)):
        await sets.world.settle()
        assert images(sets) == ["1"]
        sets.world.delete(StatefulSet, "phi-0")
        await sets.world.settle()
        assert images(sets) == ["2"], "a workload that is created again is of this release"
