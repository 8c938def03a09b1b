"""Reads a model from its artifact, if it has one, and otherwise from Hugging Face."""

from typing import Final, final

from kaito.workspace.hub.errors import ModelUnavailable
from kaito.workspace.hub.query import ModelQuery
from kaito.workspace.hub.record import FactsRecord


@final
class ModelReader:
    """Reads models.

    Args:
        endpoint: address of Hugging Face or of a mirror; empty if it must not be used.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint: Final = endpoint

    async def read(self, query: ModelQuery) -> FactsRecord:
        """Returns the facts of a model with their source.

        Raises:
            ModelUnavailable: neither the artifact nor the hub can be read, or the engine does not serve the model.
        """
        failure: ModelUnavailable | None = None
        if query.artifact is not None:
            # Imported here, because most installations read no artifacts.
            from kaito.workspace.hub.artifact import read_artifact

            try:
                facts = await read_artifact(query)
                return FactsRecord(reference=query.name, source=str(query.artifact), facts=facts)
            except ModelUnavailable as error:
                if not error.is_transient or not self._endpoint:
                    raise
                failure = error
        from kaito.workspace.hub.client import HubClient  # with aiohttp, which catalog models do not need

        try:
            facts = await HubClient(self._endpoint).read(query)
        except ModelUnavailable as error:
            if failure is None:
                raise
            raise ModelUnavailable(
                error.reason,
                f"{error.message}; {failure.message}",
                retry_after=error.retry_after,
                is_transient=True,
            ) from error
        return FactsRecord(reference=query.name, source=self._endpoint, facts=facts)
