"""Reconciles InferenceSets into Workspaces, which the Workspace controller reconciles into nodes and pods.

controller   the reconcile: observe the Workspaces, decide, act, report
children     renders the Workspaces of a set, and evaluates those that exist
rollout      decides which Workspaces to create, change and delete: a pure function
upgrade      decides when pods of a new release reach the Workspaces
service      renders the Service of the whole set
gateway      publishes a set to a Gateway with an InferencePool and an HTTPRoute
status       computes the conditions
admission    judges an InferenceSet and the Workspace that its template describes
"""
