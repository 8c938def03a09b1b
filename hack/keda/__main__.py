"""`python -m hack.keda`: builds KEDA and kube-controller-manager if they are missing, and prints their paths."""

from hack.keda.binaries import ADAPTER, CONTROLLER_MANAGER, OPERATOR, locate, path

locate()
for name in (OPERATOR, ADAPTER, CONTROLLER_MANAGER):
    print(path(name))
