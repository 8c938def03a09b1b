"""A real Karpenter core with its kwok provider for tests, without Docker: built once with Go and cached.

The provider creates Node objects without a kubelet. `instance_types.json` contains sizes of Azure with GPUs.
"""

from hack.karpenter.binaries import KARPENTER_VERSION as KARPENTER_VERSION, locate as locate
from hack.karpenter.controller import Karpenter as Karpenter
