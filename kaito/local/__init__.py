"""`kaito up`: a cluster on one machine, where pods of generated workloads run as processes.

The control plane, both managers and the cloud's API are reached over their real wires; only two things are
stand-ins: the ARM simulator for Azure, and the kubelet of `kaito.local.kubelet`, which runs the presets' commands from
a local environment instead of from images.
"""
