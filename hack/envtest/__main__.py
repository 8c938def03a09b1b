"""`python -m hack.envtest`: run a control plane in the foreground and print how to reach it."""

import argparse
import signal
import threading
from pathlib import Path

from hack.envtest.binaries import locate
from hack.envtest.control_plane import ControlPlane
from kaito.runtime.testing.envtest.binaries import Unavailable


def main() -> None:
    """Start, print `export KUBECONFIG=…` on one line, and stop on SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m hack.envtest", description=main.__doc__)
    parser.add_argument("--folder", type=Path, help="keep data, certificates and logs here")
    parser.add_argument("--port", type=int, default=0, help="the API server's port (default: any)")
    parser.add_argument("--service-cidr", default="10.0.0.0/16", help="where cluster IPs come from")
    parser.add_argument("--only-build", action="store_true", help="build what is missing, print where, stop")
    options = parser.parse_args()
    if options.only_build:
        try:
            print(locate())
        except Unavailable as reason:
            print(f"contract and process tests on a real API server will be skipped: {reason}")
        return
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopped.set())
    with ControlPlane(options.folder, port=options.port, service_cidr=options.service_cidr) as control_plane:
        print(f"export KUBECONFIG={control_plane.kubeconfig}", flush=True)
        stopped.wait()


main()
