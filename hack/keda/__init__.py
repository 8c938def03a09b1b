"""KEDA's operator and metrics adapter for tests, without Docker: built once with Go and cached.

They run beside a real kube-apiserver, with the HorizontalPodAutoscaler of a real kube-controller-manager.
"""

from hack.keda.binaries import KEDA_VERSION as KEDA_VERSION, is_built as is_built, locate as locate, path as path
