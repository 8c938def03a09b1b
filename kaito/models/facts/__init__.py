"""Facts of a model, from its config.json and the list of its files: pure functions.

documents        reads config.json as the engine does: nested text configuration, other names, defaults
architectures    what the engine supports: architectures, model types, quantization methods
weight_files     the files that the engine loads, their size and number format
attention        heads and bytes of key-value cache
layers           layers with a full cache, a window or a recurrent state
context          maximum context length
derive           all of them: a `ModelFacts`
presets          the `Preset` of a model outside the catalog
reference        `organization/model@revision`
"""
