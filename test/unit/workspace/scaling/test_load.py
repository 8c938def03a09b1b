"""The load of a server in its metrics, and of all copies together."""

from datetime import UTC, datetime

import pytest

from kaito.workspace.scaling.load import ServerLoad, observe, parse_load

NOW = datetime(2030, 1, 1, tzinfo=UTC)

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="phi"} 12.0
vllm:num_requests_waiting{engine="0",model_name="phi"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="phi"} 0.25
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="phi"} 5.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="phi"} 7.5
vllm:request_queue_time_seconds_count{engine="0",model_name="phi"} 30.0
kaito_generation_in_flight 15.0
"""

TRANSFORMERS = b"""# TYPE kaito_generation_in_flight gauge
kaito_generation_in_flight 4.0
kaito_generation_queue_length 2.0
"""


def test_metrics_of_vllm() -> None:
    assert parse_load(VLLM) == ServerLoad(
        running=12, waiting=3, cache_usage=0.25, queue_seconds_total=7.5, queued_total=30
    )


def test_metrics_of_the_transformers_server() -> None:
    assert parse_load(TRANSFORMERS) == ServerLoad(running=4, waiting=2)


def test_engines_of_one_server_are_added() -> None:
    both = b'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} 2\n'
    assert parse_load(both) == ServerLoad(running=3)


@pytest.mark.parametrize(
    "body", [None, b"", b"process_cpu_seconds_total 1\n", b"\xff\xfe", b"vllm:num_requests_running x"]
)
def test_other_responses_are_unknown(body: bytes | None) -> None:
    assert parse_load(body) is None


def queue(total: float, count: float) -> ServerLoad:
    return ServerLoad(running=1, queue_seconds_total=total, queued_total=count)


def test_the_queue_time_is_that_of_new_requests() -> None:
    seen = observe(NOW, 2, {"a": queue(10, 4), "b": queue(3, 1)}, {"a": queue(4, 2), "b": queue(3, 1)})
    assert seen.queue_seconds == 3
    assert observe(NOW, 1, {"a": queue(10, 4)}, {"a": queue(10, 4)}).queue_seconds == 0
    assert observe(NOW, 1, {"a": queue(10, 4)}, {}).queue_seconds == 0
    assert observe(NOW, 1, {"a": queue(1, 1)}, {"a": queue(10, 4)}).queue_seconds == 0, "the server restarted"
    assert observe(NOW, 1, {"a": ServerLoad(running=1)}, {}).queue_seconds is None


def test_an_observation_is_complete_if_every_copy_reported() -> None:
    assert observe(NOW, 1, {"a": ServerLoad(running=1)}, {}).is_complete
    assert not observe(NOW, 2, {"a": ServerLoad(running=1)}, {}).is_complete
    assert not observe(NOW, 0, {}, {}).is_complete
