"""What a read of a model needs to know."""

from dataclasses import dataclass, field
from typing import final

from kaito_config.image_references import ImageReference

from kaito.models.facts.reference import ModelReference


@final
@dataclass(frozen=True, slots=True)
class ModelQuery:
    """A model to read."""

    reference: ModelReference
    token: str = field(default="", repr=False)
    """Token of Hugging Face; empty for none."""
    trust_remote_code: bool = False
    artifact: ImageReference | None = None
    """Artifact with the files of the model, which is read first; None for none."""
    docker_configs: tuple[str, ...] = field(default=(), repr=False)
    """Docker configurations with credentials for the registry of the artifact."""

    @property
    def name(self) -> str:
        """The name under which the facts are kept: another artifact is another model."""
        return f"{self.reference} in {self.artifact}" if self.artifact else str(self.reference)
