"""Keeps what servers measured when they started, for the next plan of the same model on the same GPU.

One ConfigMap in the controller's namespace has one key for each measurement. Only the leader writes it. A measurement
is never changed: a later one of the same configuration is added if it is worse. A Workspace is planned with the
measurements that are older than the Workspace, so that its plan does not change while it runs; `models.fitting` has
the rules for what a measurement changes.
"""

import asyncio
import json
import re
from collections.abc import Container, Sequence
from datetime import datetime
from itertools import count
from typing import Annotated, Final, Literal, final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from kaito.models.engine import EngineSettings
from kaito.models.gpu import InstanceType
from kaito.models.measured import MeasuredMemory
from kaito.models.parallelism import load_of
from kaito.models.preset import Preset
from kaito.models.sizing import Load, vllm_need_per_gpu
from kaito.runtime import Api
from kaito.runtime.clock import monotonic
from kaito.runtime.kinds import ConfigMap
from kaito.runtime.meta import ObjectMeta
from kaito.workspace.digest import digest

NAME: Final = "kaito-measured-memory"
"""Name of the ConfigMap."""

VERSION: Final = 1
MAX_RECORDS: Final = 512
"""Measurements that are kept. Each takes about 700 bytes of the 1 MiB of a ConfigMap."""

MAX_RECORDS_OF_ONE: Final = 4
"""Measurements of one configuration, each worse than those before."""

RETRY_SECONDS: Final = 600.0
"""Pause after a write that failed: it would be repeated in every reconcile of every Workspace."""

_MAX_CHARACTERS: Final = 4096
_WORSE: Final = 0.05
"""Share by which a measurement differs from a better one of the same configuration."""

_PLAUSIBLE: Final = (0.25, 2.0)
"""Range of measured to estimated memory. What is outside is not kept: pods belong to users."""

_LARGEST: Final = 2**62
_Bytes = Annotated[int, Field(ge=0, le=_LARGEST)]
_Size = Annotated[int, Field(ge=1, le=1024)]


@final
class MeasurementRecord(BaseModel):
    """One measurement: the value of a key of the ConfigMap."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    version: Literal[1] = VERSION
    model: str = Field(max_length=512)
    """Name in the catalog, or Hugging Face ID and commit."""
    gpu: str = Field(max_length=128)
    memory_per_gpu: _Bytes
    dtype: str = Field(max_length=32)
    tensor: _Size
    pipeline: _Size
    data: _Size
    nodes: _Size
    settings: str = Field(max_length=64)
    """Digest of the settings that change the memory of the engine."""
    adapters: int = Field(ge=0, le=1024)
    sequences: int = Field(ge=0, le=2**20)
    """Requests whose recurrent state was planned for, for hybrid models."""
    peak_bytes: _Bytes
    """Memory of a GPU beside the key-value cache."""
    cache_tokens: _Bytes
    """Tokens of the key-value cache of a copy."""
    image: str = Field(max_length=1024)
    """Image of the server, for information."""
    measured_at: AwareDatetime

    @property
    def identity(self) -> str:
        """Digest of the configuration."""
        measured = {"version", "peak_bytes", "cache_tokens", "image", "measured_at"}
        return digest(self.model_dump(mode="json", exclude=measured))

    def is_worse_than(self, others: Sequence["MeasurementRecord"]) -> bool:
        """Whether it used clearly more memory, or left a smaller cache, than all others of its configuration."""
        peak = max((each.peak_bytes for each in others), default=0)
        tokens = min((each.cache_tokens for each in others), default=_LARGEST)
        return self.peak_bytes > peak * (1 + _WORSE) or self.cache_tokens < tokens * (1 - _WORSE)

    def is_plausible(self, preset: Preset, instance: InstanceType) -> bool:
        """Whether the memory is in the order of the estimate."""
        least, most = (self.estimate(preset, instance) * ratio for ratio in _PLAUSIBLE)
        return least <= self.peak_bytes <= most and self.cache_tokens > 0

    def estimate(self, preset: Preset, instance: InstanceType) -> float:
        """Returns the bytes on each GPU that this version plans for the configuration, without the cache."""
        load = Load(context=0, sequences=self.sequences, adapters=self.adapters)
        return vllm_need_per_gpu(preset, instance.gpu, tensor=self.tensor, stages=self.pipeline, load=load)


def model_name(preset: Preset) -> str:
    """Returns the name under which measurements of a model are kept."""
    return preset.name if preset.is_in_catalog else f"{preset.repository}@{preset.revision}"


def settings_digest(*, config: str, performance_mode: str, adapters: int) -> str:
    """Returns the digest of what changes the memory of the engine besides the division of the model.

    Args:
        config: digest of the user's configuration file; empty without one.
        performance_mode: value of the annotation.
        adapters: number of adapters.
    """
    return digest([config, performance_mode, adapters])


def sequences_of(preset: Preset, engine: EngineSettings) -> int:
    """Returns the requests whose recurrent state is planned for; 0 for a model without one."""
    return load_of(preset, engine).sequences if preset.state_bytes else 0


def measured_memory(
    records: Sequence[MeasurementRecord],
    preset: Preset,
    instance: InstanceType,
    *,
    created: datetime | None,
    settings: str,
) -> tuple[MeasuredMemory, ...]:
    """Returns the measurements that a plan uses.

    Args:
        records: all measurements.
        preset: the model.
        instance: the nodes that are planned.
        created: when the Workspace was created; None for one that is not stored.
        settings: `settings_digest` of the Workspace.
    """
    name = model_name(preset)
    return tuple(
        MeasuredMemory(
            gpu=each.gpu,
            memory_per_gpu=each.memory_per_gpu,
            tensor=each.tensor,
            pipeline=each.pipeline,
            data=each.data,
            nodes=each.nodes,
            peak=each.peak_bytes,
            estimate=each.estimate(preset, instance),
            cache_tokens=each.cache_tokens,
            has_same_settings=each.settings == settings,
        )
        for each in records
        if (each.model, each.gpu, each.memory_per_gpu) == (name, instance.gpu.name, instance.memory_per_gpu)
        and (created is None or each.measured_at < created)
    )


@final
class Measurements:
    """Reads and writes the ConfigMap; shared by all reconciles of a process.

    Args:
        namespace: of the controller. Nothing is kept if it is empty.
    """

    def __init__(self, namespace: str = "") -> None:
        self._namespace = namespace
        self._version = ""
        self._data: dict[str, str] = {}
        self._records: tuple[MeasurementRecord, ...] = ()
        self._by_identity: dict[str, list[MeasurementRecord]] = {}
        self._reading = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._retry_at: float | None = None
        """Time of the next write after one that failed."""

    async def records(self, api: Api) -> Sequence[MeasurementRecord]:
        """Returns all measurements. The ConfigMap is read again if its metadata in the cache has changed.

        Raises:
            ApiError: it cannot be read.
        """
        if not self._namespace:
            return ()
        known = await api.find(ConfigMap, NAME, self._namespace)
        version = known.metadata.resource_version if known is not None else ""
        if version != self._version:
            async with self._reading:  # concurrent reconciles wait for the first, which reads it for all
                if version != self._version:
                    found = await api.find(ConfigMap, NAME, self._namespace, consistency="live")
                    self._set(found.metadata.resource_version if found else "", found.data if found else {})
        return self._records

    async def keep(self, api: Api, record: MeasurementRecord) -> bool:
        """Adds a measurement, unless an equal or worse one of its configuration is kept, or there are too many.

        Raises:
            ApiError: the ConfigMap cannot be read or written.
        """
        if not self._namespace:
            return False
        async with self._writing:
            if self._retry_at is not None and monotonic() < self._retry_at:
                return False
            await self.records(api)
            same = self._by_identity.get(record.identity, ())
            if len(same) >= MAX_RECORDS_OF_ONE or len(self._data) >= MAX_RECORDS or not record.is_worse_than(same):
                return False
            data = {**self._data, _unused_key(record, self._data): _to_json(record)}
            wanted = ConfigMap(metadata=ObjectMeta(name=NAME, namespace=self._namespace), data=data)
            self._retry_at = monotonic() + RETRY_SECONDS
            stored = await api.ensure(wanted)
            self._retry_at = None
            self._set(stored.metadata.resource_version, data)
            return True

    def _set(self, version: str, data: dict[str, str]) -> None:
        self._version, self._data = version, dict(data)
        self._records = tuple(found for text in data.values() if (found := _parse(text)) is not None)
        self._by_identity = {}
        for record in self._records:
            self._by_identity.setdefault(record.identity, []).append(record)


def _unused_key(record: MeasurementRecord, used: Container[str]) -> str:
    """Returns a key that no entry has: users may have deleted some, and entries of other versions stay."""
    name = re.sub(r"[^-.\w]", "-", record.model.partition("@")[0], flags=re.ASCII)[:150]
    keys = (f"{name}.{record.identity}.{number}" for number in count())
    return next(key for key in keys if key not in used)


def _to_json(record: MeasurementRecord) -> str:
    return json.dumps(record.model_dump(mode="json", by_alias=True))


def _parse(text: str) -> MeasurementRecord | None:
    """Returns the measurement; None for one that another version wrote or that was edited."""
    if len(text) > _MAX_CHARACTERS:
        return None
    try:
        return MeasurementRecord.model_validate_json(text)
    except ValidationError:
        return None
