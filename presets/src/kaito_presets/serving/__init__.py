"""The contract that both inference servers serve: `/chat`, error responses, adapters and configuration.

`kaito_presets.inference` (transformers) and `kaito_presets.vllm` implement this contract on their engines and do not
import each other. Nothing here imports torch, transformers or vLLM.
"""
