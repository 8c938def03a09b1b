"""Runs the example operator on the API server with the URL of the first argument, without a kubeconfig and a lease.

`test/e2e/test_wheel.py` runs it in an environment that contains the framework and the example only.
"""

import sys

from memcached_operator.controller import controller

from kaito.runtime import Manager, Settings
from kaito.runtime.client.config import ClusterConfig, NoCredentials
from kaito.runtime.client.http import HttpTransport


def main() -> None:
    """Runs until a signal."""
    Manager(
        Settings(metrics_bind_address="0", health_probe_bind_address="0"),
        controllers=[controller],
        transport=HttpTransport(ClusterConfig(server=sys.argv[1], credentials=NoCredentials())),
        name="memcached-operator",
    ).run()


if __name__ == "__main__":
    main()
