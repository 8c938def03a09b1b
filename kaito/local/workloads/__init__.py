"""The StatefulSet and Job controllers of the local cluster."""
