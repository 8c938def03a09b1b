"""Checks whether the Azure SDK, an extra of the package, is installed."""

from importlib.util import find_spec

INSTALL_HINT = "the Azure SDK is not installed: pip install 'kaito[azure]'"


def is_sdk_installed() -> bool:
    """Whether `azure.*` can be imported; does not import it, which takes over 1 s."""
    try:
        return find_spec("azure.mgmt.compute") is not None
    except ModuleNotFoundError:
        return False
