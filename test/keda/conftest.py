"""Tests with a real KEDA. `make keda` builds it; without it, these tests are not collected."""

from hack.keda import is_built

collect_ignore_glob = [] if is_built() else ["test_*.py"]
