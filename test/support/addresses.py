"""The address of servers in tests whose port is fixed, such as that of the pods."""

import os


def own_address() -> str:
    """Returns an address of the loopback network that only this process uses.

    The workers of pytest-xdist, and other runs on the same machine, can serve the same port at the same time.
    """
    process = os.getpid()
    # The network is 127.0.0.0/8. The second byte begins at 128, above the networks of local clusters; process IDs have
    # at most 22 bits.
    return f"127.{128 + (process >> 16)}.{process >> 8 & 255}.{process & 255}"
