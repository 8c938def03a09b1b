"""A real kube-apiserver and etcd for tests, without Docker and without a cluster, as controller-runtime's envtest.

    # conftest.py
    pytest_plugins = ["kaito.runtime.testing.pytest"]

    async def test_on_a_real_server(real_cluster: RealCluster) -> None:
        await real_cluster.install(Memcached)
        async with real_cluster.manager(controller):
            await real_cluster.client.create(memcached)
            await real_cluster.eventually(lambda: is_scaled(real_cluster))

The binaries are those of setup-envtest and are found through the same variables (`find_binaries`). There is no
controller manager: no garbage collection, no namespace deletion, and workloads only with `workloads()`. Time is real.
"""

from kaito.runtime.testing.envtest.binaries import Unavailable as Unavailable, find_binaries as find_binaries
from kaito.runtime.testing.envtest.cluster import RealCluster as RealCluster
from kaito.runtime.testing.envtest.control_plane import ControlPlane as ControlPlane, free_port as free_port
