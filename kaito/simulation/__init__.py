"""Simulates Kaito as a whole in virtual time: both managers with two replicas each, the API server, Azure, and nodes.

`kaito simulate` runs it, and a test calls `simulate(KaitoSimulation(), 7)`. A seed decides what users do, what fails,
and the order of tasks; invariants are checked at every step. The package is for tests: no manager imports it.
"""
