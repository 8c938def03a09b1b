"""How long each stage from the Workspace to the first answer took, from the times that the objects record."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import final

from kaito.api import Claim, conditions
from kaito.console.views.json_values import Json, time_text
from kaito.diagnosis import Diagnosis, Situation
from kaito.runtime.kinds import Pod
from kaito.runtime.kinds.pod import ContainerStatus


@final
@dataclass(frozen=True, slots=True)
class Stage:
    """One stage."""

    label: str
    kinds: tuple[str, ...]
    """Kinds whose failure is a failure of the stage while it runs."""
    start: datetime | None
    end: datetime | None
    detail: str = ""


def waterfall(situation: Situation, diagnosis: Diagnosis) -> list[Json]:
    """Returns the stages that have begun, in order. A stage without an end is the present one."""
    return [_json(stage, diagnosis) for stage in _stages(situation) if stage.start is not None]


def _json(stage: Stage, diagnosis: Diagnosis) -> Json:
    cause = diagnosis.cause
    is_failed = stage.end is None and diagnosis.state == "failing" and cause is not None and cause.kind in stage.kinds
    state = "done" if stage.end is not None else "failed" if is_failed else "running"
    return {
        "label": stage.label,
        "start": time_text(stage.start),
        "end": time_text(stage.end),
        "state": state,
        "detail": stage.detail,
    }


def _stages(situation: Situation) -> Iterator[Stage]:
    created = situation.workspace.metadata.creation_timestamp
    claims = situation.live_claims
    began = created
    if situation.has_claims:
        claimed = _first([claim.metadata.creation_timestamp for claim in claims])
        yield Stage("claim", ("Workspace",), created, claimed, _count(claims, "claim"))
        launched = _last(claims, lambda claim: _reached(claim, claim.stages.launched))
        kinds = ("Machine", "NodeClaim", "Instance")
        yield Stage("instance", kinds, claimed, launched, claims[0].instance_type if claims else "")
        ready = _last(claims, lambda claim: _reached(claim, "Ready"))
        yield Stage("node", (*kinds, "Node"), launched, ready, ", ".join(node.name for node in situation.nodes))
        began = ready
    pod = next((each for each in situation.pods if not each.deleting), None)
    if pod is not None:
        yield from _pod_stages(situation, pod, began)


def _pod_stages(situation: Situation, pod: Pod, began: datetime | None) -> Iterator[Stage]:
    created = pod.metadata.creation_timestamp
    start = max(time for time in (created, began) if time is not None) if created or began else None
    scheduled = _condition(pod, "PodScheduled")
    yield Stage("pod scheduled", ("Pod", "StatefulSet", "Job"), start, scheduled, pod.name)
    inits, mains = pod.status.init_container_statuses, pod.status.container_statuses
    first = _first([_started(status) for status in [*inits, *mains]])
    yield Stage("image", ("Pod",), scheduled, first, mains[0].image if mains else "")
    served = _first([_started(status) for status in mains])
    if inits:
        yield Stage("weights", ("Pod",), first, served, ", ".join(status.name for status in inits))
    restarts = sum(status.restart_count for status in mains)
    detail = f"{restarts} restarts" if restarts else ""
    if situation.workspace.tuning is not None:
        ended = _first([status.state.terminated.finished_at for status in mains if status.state.terminated])
        yield Stage("tuning", ("Pod", "Job"), served, ended, detail)
        return
    answers = _condition(pod, "Ready")
    yield Stage("server start", ("Pod",), served, answers, detail)
    inference = situation.condition(conditions.INFERENCE_READY)
    ready = inference.last_transition_time if inference is not None and inference.is_true else None
    yield Stage("ready", ("Service", "Workspace"), answers, max(ready, answers) if ready and answers else None)


def _reached(claim: Claim, stage: str) -> datetime | None:
    condition = claim.condition(stage)
    return condition.last_transition_time if condition is not None and condition.is_true else None


def _condition(pod: Pod, name: str) -> datetime | None:
    condition = pod.condition(name)
    return condition.last_transition_time if condition is not None and condition.status == "True" else None


def _started(status: ContainerStatus) -> datetime | None:
    state = status.state
    if state.running is not None:
        return state.running.started_at
    ended = state.terminated or status.last_state.terminated
    return ended.started_at if ended is not None else None


def _first(times: Sequence[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _last(claims: Sequence[Claim], time: Callable[[Claim], datetime | None]) -> datetime | None:
    """Returns when the last claim reached a stage; None until all have."""
    found = [time(claim) for claim in claims]
    known = [each for each in found if each is not None]
    return max(known) if known and len(known) == len(found) else None


def _count(objects: Sequence[object], name: str) -> str:
    return f"{len(objects)} {name}{'' if len(objects) == 1 else 's'}"
