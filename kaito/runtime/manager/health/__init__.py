"""Health of a manager: the checks behind /healthz and /readyz, and the watchdog of the event loop."""
