"""The workspace controller: reconciles Workspaces into GPU nodes, workloads and status conditions.

    program         the console script
    main            the process: flags, environment, manager
    controller      the reconcile, and the watches that queue it
    steps/          one module per step of the reconcile
    preflight/      checks of every input before a node is claimed
    manifests/      builders of the objects that the controller applies
    claim_policy    when to create, replace and delete node claims
    status          conditions from what the steps observed
    admission       the validating webhook
    orphans         the periodic deletion of claims without a Workspace

It communicates with the gpu-provisioner only through the Kubernetes API: it creates Machines or NodeClaims and reads
their status.
"""
