"""Pods that answer the controller's polls."""

import json
from typing import Any


class Servers:
    """Answers the polls of pods by their address."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.polls = 0

    async def __call__(self, address: str) -> bytes | None:
        self.polls += 1
        document = self.documents.get(address)
        return None if document is None else json.dumps(document).encode()
