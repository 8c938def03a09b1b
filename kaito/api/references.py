"""Validates names that a Workspace refers to: container images and Kubernetes objects."""

import re
from typing import Final

from kaito_config.image_references import ImageReferenceError, parse_image_reference

_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

OBJECT_NAME_LIMIT: Final = 253
"""Longest name of a Secret or ConfigMap (DNS-1123 subdomain)."""


def image_problem(text: str, *, pushed: bool = False) -> str:
    """Explains why `text` is not an image reference, with the remedy; returns an empty text if it is one.

    Args:
        text: `[registry[:port]/]repository[:tag][@digest]`.
        pushed: the image is written, so that a digest, which follows from the content, cannot be chosen.
    """
    if pushed and "@" in text:
        return f"{text!r} names a digest, which follows from the content: write registry/repository:tag"
    try:
        parse_image_reference(text)
    except ImageReferenceError as error:
        return str(error)
    return ""


def registry_of(image: str) -> str:
    """Returns the registry of an image: Docker Hub if the reference has none, empty if it is not a reference."""
    try:
        return parse_image_reference(image).registry
    except ImageReferenceError:
        return ""


def matches_registry(key: str, image: str) -> bool:
    """Returns whether an entry of a Docker configuration's `auths` with that key is for the image.

    The program in the pod selects credentials by the same rule.
    """
    try:
        return parse_image_reference(image).match_credentials(key) > 0
    except ImageReferenceError:
        return False


def is_subdomain(text: str) -> bool:
    """Returns whether a text is a DNS-1123 subdomain, the form of API groups and of most names of objects."""
    return bool(_SUBDOMAIN.fullmatch(text)) and len(text) <= OBJECT_NAME_LIMIT


def object_name_problem(text: str, kind: str) -> str:
    """Explains why no object of that kind can have the name, with the remedy; returns an empty text if one can."""
    if is_subdomain(text):
        return ""
    return (
        f"{text!r} cannot be the name of a {kind}: use lower-case letters, digits, '-' and '.', beginning and ending "
        f"with a letter or digit"
    )
