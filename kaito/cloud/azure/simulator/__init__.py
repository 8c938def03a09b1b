"""ARM's wire shapes over HTTP: agent pools with long-running operations, sizes, quota, and scripted faults.

The real Azure SDK talks to it. In Python: `Simulator` with `serve` (a socket) or `InProcessTransport` (no socket,
virtual time); as a process: `python -m kaito.cloud.azure.simulator --help`. Pools live in memory until it ends, and
their nodes join a cluster when it is given a Kubernetes client.
"""

from kaito.cloud.azure.simulator.catalog import VirtualMachineSize as VirtualMachineSize
from kaito.cloud.azure.simulator.faults import Fault as Fault, OperationFault as OperationFault
from kaito.cloud.azure.simulator.knobs import Knobs as Knobs
from kaito.cloud.azure.simulator.named_faults import NAMED as NAMED, named as named
from kaito.cloud.azure.simulator.settings import SimulatorSettings as SimulatorSettings
from kaito.cloud.azure.simulator.simulator import Simulator as Simulator
