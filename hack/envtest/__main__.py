"""`python -m hack.envtest`: run a control plane in the foreground and print how to reach it."""

import signal
import threading

from hack.envtest.control_plane import ControlPlane

stopped = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stopped.set())
with ControlPlane() as control_plane:
    print(f"export KUBECONFIG={control_plane.kubeconfig}", flush=True)
    stopped.wait()
