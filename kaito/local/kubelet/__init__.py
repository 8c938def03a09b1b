"""A kubelet that runs pods as local processes: init containers, probes, restarts, exit codes, logs, graceful
termination.

It follows the rules of the real kubelet (Pod lifecycle, Kubernetes documentation) for everything that a controller can
observe. Processes are not isolated. Volumes are folders, and the paths under which a container expects them are
rewritten in its command and environment.
"""
