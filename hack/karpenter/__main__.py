"""`python -m hack.karpenter`: builds Karpenter with the kwok provider if it is missing, and prints its path."""

from hack.karpenter.binaries import BINARY, locate
from kaito.runtime.testing.envtest.binaries import Unavailable

try:
    print(locate() / BINARY)
except Unavailable as reason:
    print(f"the tests with a real Karpenter will be skipped: {reason}")
