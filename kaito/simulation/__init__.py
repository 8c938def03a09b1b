"""Simulates Kaito as a whole in virtual time: both managers with two replicas each, the API server, Azure, and nodes.

    from kaito.runtime.testing.simulate import simulate
    from kaito.simulation.simulation import KaitoSimulation

    report = simulate(KaitoSimulation(), 7)

`kaito simulate` runs it. A seed decides what users do, what fails, and the order of tasks; invariants are checked at
every step. The package is for tests: no manager imports it.
"""
