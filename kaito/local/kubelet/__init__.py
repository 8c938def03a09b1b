"""A kubelet that runs pods as local processes: init containers, probes, restarts, exit codes, logs, graceful ends.

It follows the real one's rules (Pod lifecycle, Kubernetes documentation) for everything a controller can observe.
What it does not do: isolate anything. Volumes are folders, and the paths under which a container expects them are
rewritten in its command and environment.
"""
