"""The simulation's users, failures and invariants on real processes, in real time (`make soak`).

etcd, kube-apiserver, kube-controller-manager, kube-scheduler, and two processes of each controller run on loopback; the
simulator of Azure is reached over HTTP. Nodes and kubelets are simulated, everything else is what a cluster runs.
Processes are killed, paused and restarted; the reference model of `kaito.simulation` checks what the API server stores.
"""
