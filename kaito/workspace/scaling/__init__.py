"""Scales Workspaces and InferenceSets by the load that their servers report.

copies       selects the pods whose load counts
load         reads the load of a server from its Prometheus metrics
decision     decides the number of copies from the load of the last minutes: a pure function
monitor      polls the servers and keeps the history
controller   writes the number of copies, and the decision with its reason to the status
"""
