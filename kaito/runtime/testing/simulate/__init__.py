"""Deterministic simulation of operators: seeds decide what users do, what fails, and the order of tasks.

A `Simulation` describes the operators, the actions of users, and what must hold; the memcached example has one
(`examples/memcached-operator/tests/test_simulation.py`). `simulate` runs one seed: several
replicas of each operator on an in-memory API server, in virtual time, with crashes, suspended leaders, failing requests
and lagging watches. The same seed is the same run on every machine.
"""

from kaito.runtime.testing.simulate.faults import common_faults as common_faults
from kaito.runtime.testing.simulate.limits import Finding as Finding, Limits as Limits
from kaito.runtime.testing.simulate.minimize import minimize as minimize
from kaito.runtime.testing.simulate.process import Operator as Operator, Process as Process, Replica as Replica
from kaito.runtime.testing.simulate.reporting import describe as describe, pytest_case as pytest_case
from kaito.runtime.testing.simulate.run import (
    Report as Report,
    Run as Run,
    Simulation as Simulation,
    Violation as Violation,
)
from kaito.runtime.testing.simulate.runner import scenario_of as scenario_of, simulate as simulate
from kaito.runtime.testing.simulate.steps import Scenario as Scenario, Step as Step, StepKind as StepKind
