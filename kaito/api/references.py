"""Validates references to container images."""

from kaito_config.image_references import ImageReferenceError, parse_image_reference


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
