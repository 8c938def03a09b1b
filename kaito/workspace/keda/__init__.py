"""Answers KEDA's external-scaler protocol with the load of Workspaces and InferenceSets: a part of the activator.

trigger     reads the metadata of a trigger
loads       reads the load of the servers when KEDA requests it
scaler      answers the questions of the protocol, without gRPC
server      serves them over gRPC, with TLS if there is a certificate

The figures are those of `scaling`, so that KEDA and Kaito's own scaler see the same load. The activator answers and not
the controller, because every replica of the activator works and only one controller leads.
"""
