"""Holds requests to Workspaces without copies, and wakes the Workspaces: the program `workspace-activator`.

While a Workspace has no ready copy, the controller adds the pods of the activator to the endpoints of its Service
(`steps.activator`). Each Workspace has a port, so that the activator knows the Workspace of a connection. `gate` holds
requests, `proxy` forwards them, `listeners` follows the cluster, `main` is the program.

The activator is a Deployment of its own, not a part of the controller: a controller ends when it loses its lease, and
is replaced at every upgrade, and held requests would be lost with it. Their bodies would also count against the memory
of the controller. Its service account may read Workspaces, pods and EndpointSlices, and scale Workspaces.
"""
