"""The same ConfigMap controller on `kaito.runtime`, on controller-runtime and on kopf, against one real API server.

Each peer starts with 5,000 ConfigMaps of 1 KB whose `data.done` differs from `data.want`, and sets it by a merge patch
with ten workers. Peers take turns, so that the machine's mood hits them alike; reported are medians.
"""

from hack.bench.framework.run import main as main
