"""Explains why a Workspace is not ready: one root cause, what happens next and when, and what the user can do.

`diagnose` is a pure function of objects that were read from a cluster. `kaito explain` calls it, and any other client
may. The modules:

    situation    the objects, and look-ups in them
    result       the diagnosis: cause, next steps, advice, chain of objects
    deletion     causes of a Workspace that is being deleted, and of one that no controller processes
    resources    causes among claims and nodes
    workload     causes among pods, Services and Jobs
    gpus         the resources of GPUs that a node advertises
    advice       what happens next and what the user can do, by reason
    chain        the objects from the Workspace to the server, each with its state
    diagnose     selects the root cause and builds the diagnosis

It reads what the provisioner and the workspace controller record, and works as far as possible without the records, as
with the objects of upstream Kaito and of Karpenter.
"""

from kaito.diagnosis.diagnose import diagnose as diagnose
from kaito.diagnosis.gpus import advertised_gpus as advertised_gpus
from kaito.diagnosis.result import (
    Cause as Cause,
    Diagnosis as Diagnosis,
    EventNote as EventNote,
    Link as Link,
    NextStep as NextStep,
)
from kaito.diagnosis.situation import CONTROLLERS as CONTROLLERS, Situation as Situation, count_of as count_of
