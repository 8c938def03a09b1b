"""What a cloud error means for a claim: reason, words and pause, for every verdict."""

import pytest

from kaito.cloud.errors import CloudError, Deferred, Throttled, Verdict
from kaito.provisioner.failures import MESSAGE_LIMIT, failure, pause
from kaito.provisioner.settings import ProvisionerSettings
from test.unit.provisioner.conftest import Stage

SETTINGS = ProvisionerSettings()


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("retry_after", [None, 0.0, 1.0])
def test_pauses_grow_and_are_bounded(verdict: Verdict, retry_after: float | None) -> None:
    error = CloudError("no", verdict=verdict, retry_after=retry_after)
    pauses = [pause(error, failures, SETTINGS) for failures in (1, 2, 3, 10, 100, 10**6)]
    assert pauses == sorted(pauses)
    assert pauses[0] > 0
    assert pauses[-1] <= 4 * 3600
    assert pauses[-1] >= 60, "what fails for hours is not tried every few seconds"


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_reason_and_the_clouds_words(verdict: Verdict) -> None:
    found = failure(CloudError("its words", code="ItsCode", verdict=verdict), 1, SETTINGS)
    assert found.reason
    assert "ItsCode: its words" in found.message


def test_the_clouds_own_pause_is_kept_but_not_without_limit() -> None:
    """arm-07: a Retry-After of 1200 s."""
    assert pause(Throttled("slow down", retry_after=300), 1, SETTINGS) == 300
    assert pause(Throttled("slow down", retry_after=10**6), 1, SETTINGS) == 1800


def test_long_dumps_are_cut_to_one_line() -> None:
    """A long message is repeated in several conditions."""
    message = failure(CloudError("first line\n\n  second\tline " + "x" * 5000), 1, SETTINGS).message
    assert message.startswith("first line second line xxx")
    assert message.endswith("...")
    assert len(message) <= MESSAGE_LIMIT + 3


async def test_our_own_waiting_is_not_reported_as_throttling(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the request budget of the process used up, no condition or event is about the cloud."""
    await stage.start()
    assert stage.tools is not None
    create = stage.tools.cloud.create
    deferred = 0

    async def later(self: object, plan: object) -> object:
        nonlocal deferred
        deferred += 1
        if deferred <= 3:
            raise Deferred("budget used up", retry_after=20)
        return await create(plan)  # type: ignore[arg-type]

    monkeypatch.setattr(type(stage.tools.cloud), "create", later)
    claim = stage.claim()
    await stage.world.advance(30)
    assert stage.condition("launched").reason == "AwaitingReconciliation"
    await stage.until_ready()
    assert deferred == 4
    assert [event.reason for event in stage.world.events(claim) if event.type == "Warning"] == []
