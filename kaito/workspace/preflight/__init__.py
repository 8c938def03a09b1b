"""Checks every input of a Workspace before a node is claimed.

`checks.CHECKS` is the ordered table of checks. It has three callers:

* admission runs the checks that need the object alone (`validate_workspace`);
* the controller runs all checks in each reconcile (`run_checks` with `live.LiveCluster`), before it creates a claim;
* tools without a cluster run all checks on files (`run_checks` with `offline.ManifestReader`).

A Workspace that fails a check has no plan, and no claim is created for it. Its conditions contain reason and message.
Existing nodes and workloads stay until the input is corrected: ResourceReady reports the problem, and InferenceReady
still reports the pods.
"""

from kaito.workspace.preflight.checks import CHECKS as CHECKS
from kaito.workspace.preflight.context import ClusterReader as ClusterReader, PreflightContext as PreflightContext
from kaito.workspace.preflight.finding import Finding as Finding
from kaito.workspace.preflight.run import run_checks as run_checks, validate_workspace as validate_workspace
