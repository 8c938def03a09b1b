"""The workspace controller: a Workspace goes in, GPU nodes, a workload and a truthful status come out.

    main          the process: flags, environment, manager
    controller    the reconcile as a table of contents, and what wakes it
    steps/        one file a step: plan, claims, nodes, services, inference, tuning, removal
    manifests/    pure builders of everything the controller applies
    status        conditions from what the steps saw
    admission     the rules that schema and CEL cannot express
    orphans       the periodic collector of claims nobody wants

It meets the gpu-provisioner only in the cluster: it creates Machines or NodeClaims and reads their status.
"""
