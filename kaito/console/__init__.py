"""The console: a web application that shows the Workspaces of a cluster, and lets users talk to their models.

`kaito console` runs it against a kubeconfig, `kaito up` in its own process, and a Deployment in a cluster. Informers of
the framework are the source of everything that it shows; `kaito.diagnosis`, the plans and the cost ledger compute it.
The modules:

    command      settings from arguments, and the process
    settings     settings of the console
    console      assembles the parts: informers, board, server
    cluster      cached kinds, and the objects of one Workspace
    board        a row for each Workspace, computed when something about it changes
    stream       server-sent events: a snapshot, then changes
    server       routes, middlewares
    security     the link's token, cookie, Host and Origin; rights of users in a cluster
    views        pure functions from objects to the JSON of the API
    writes       creates, scales and deletes Workspaces with the rights of the user
    static       the application in the browser
"""
