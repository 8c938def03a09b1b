"""Names of objects in paths and manifests."""

import re
from typing import Final

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""Approximately a DNS-1123 subdomain; the API server validates it in full."""


def is_name(text: str) -> bool:
    """Whether an object can have this name, approximately; the API server decides."""
    return _NAME.fullmatch(text) is not None
