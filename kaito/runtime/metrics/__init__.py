"""Prometheus metrics of a manager: reconciles, work queues, caches, API requests, webhooks and leader election."""

from kaito.runtime.metrics.collectors import PREFIX as PREFIX
from kaito.runtime.metrics.metrics import Metrics as Metrics
from kaito.runtime.metrics.requests import RequestMetrics as RequestMetrics
