"""Judges every input of a Workspace before a node is paid for.

`checks.CHECKS` is the ordered table; each check declares what it needs. Three callers share it:

* admission runs the checks that need the object alone (`admission.judge`);
* the controller runs all of them in each reconcile (`examine` with the live cluster), before it creates a claim;
* tools without a cluster run all of them on files (`examine` with `offline.Files`).

A Workspace that fails a check has no plan, so no claim is created for it; its conditions have the reason and the
message. Nodes and workload that exist already stay as they are until the input is repaired: the condition
ResourceReady then has the problem, and InferenceReady keeps reporting the pods.
"""

from kaito.workspace.preflight.checks import CHECKS as CHECKS
from kaito.workspace.preflight.examination import Cluster as Cluster, Examination as Examination
from kaito.workspace.preflight.finding import Finding as Finding
from kaito.workspace.preflight.run import examine as examine, judge as judge
