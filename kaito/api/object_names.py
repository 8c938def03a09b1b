"""Validates names of Kubernetes objects."""

import re
from typing import Final

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")

_LABEL_LIMIT: Final = 63
"""Longest value of a label, and longest name in its key."""

OBJECT_NAME_LIMIT: Final = 253
"""Longest name of a Secret or ConfigMap (DNS-1123 subdomain)."""


def is_subdomain(text: str) -> bool:
    """Returns whether a text is a DNS-1123 subdomain, the form of API groups and of most names of objects."""
    return bool(_SUBDOMAIN.fullmatch(text)) and len(text) <= OBJECT_NAME_LIMIT


def is_label_key(text: str) -> bool:
    """Returns whether a text is the key of a label: a name, with or without a DNS-1123 subdomain and `/` before it."""
    domain, slash, name = text.rpartition("/")
    return (not slash or is_subdomain(domain)) and bool(name) and is_label_value(name)


def is_label_value(text: str) -> bool:
    """Returns whether a text is the value of a label, which may be empty."""
    return len(text) <= _LABEL_LIMIT and (not text or bool(_LABEL_NAME.fullmatch(text)))


def object_name_problem(text: str, kind: str) -> str:
    """Explains why no object of that kind can have the name, with the remedy; returns an empty text if one can."""
    if is_subdomain(text):
        return ""
    return (
        f"{text!r} cannot be the name of a {kind}: use lower-case letters, digits, '-' and '.', beginning and ending "
        f"with a letter or digit"
    )
