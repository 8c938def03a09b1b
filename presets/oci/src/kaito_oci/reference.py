"""Parses the image references of command lines."""

from kaito_config.image_references import ImageReference, ImageReferenceError, parse_image_reference

from kaito_oci.errors import ConfigurationError


def parse_reference(text: str) -> ImageReference:
    """Parses `[registry[:port]/]repository[:tag][@digest]`.

    Raises:
        ConfigurationError: `text` is not an image reference.
    """
    try:
        return parse_image_reference(text.strip())
    except ImageReferenceError as error:
        raise ConfigurationError(str(error)) from error
