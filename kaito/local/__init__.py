"""`kaito up`: a cluster on one machine, where pods of generated workloads run as processes.

All components talk over their real protocols. Two of them are substitutes: the ARM simulator for Azure, and the kubelet
of `kaito.local.kubelet`, which runs the presets' commands from a local environment instead of from images.
"""
