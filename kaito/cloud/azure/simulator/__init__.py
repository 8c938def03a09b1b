"""Simulates Azure Resource Manager for one AKS cluster: agent pools, operations, SKUs, quota, and faults.

The Azure SDK works with it unchanged. In Python, use `Simulator` with `serve` (a socket) or `InProcessTransport` (no
socket, virtual time); as a process, `python -m kaito.cloud.azure.simulator --help`. State is kept in memory. With a
Kubernetes client, the nodes of the agent pools join a cluster.
"""

from kaito.cloud.azure.simulator.catalog import VirtualMachineSize as VirtualMachineSize
from kaito.cloud.azure.simulator.faults import Fault as Fault, OperationFault as OperationFault
from kaito.cloud.azure.simulator.knobs import Knobs as Knobs
from kaito.cloud.azure.simulator.named_faults import NAMED as NAMED, named as named
from kaito.cloud.azure.simulator.settings import SimulatorSettings as SimulatorSettings
from kaito.cloud.azure.simulator.simulator import Simulator as Simulator
