"""Logs of pods, commands in their containers, connections to their ports, and ephemeral containers.

pods         `Pods`, which authors of operators use
logs         reads a log as lines
execution    a running command: input, output, exit code
forwarding   connections to a port of a pod, and a local port in front of it
upgrade      opens the WebSockets of both
"""

from kaito.runtime.client.pods.execution import Completed as Completed, Execution as Execution, Output as Output
from kaito.runtime.client.pods.forwarding import PodConnection as PodConnection
from kaito.runtime.client.pods.pods import Pods as Pods
