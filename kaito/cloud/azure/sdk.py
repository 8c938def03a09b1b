"""The Azure SDK is an extra of the package: whoever needs it asks here first, and says how to get it."""

from importlib.util import find_spec

INSTALL_HINT = "the Azure SDK is not installed: pip install 'kaito[azure]'"


def is_sdk_installed() -> bool:
    """Whether `azure.*` can be imported, without importing it: that takes over a second."""
    try:
        return find_spec("azure.mgmt.compute") is not None
    except ModuleNotFoundError:
        return False
