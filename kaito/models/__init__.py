"""The preset catalog and the sizing engine: which models there are, what they need, and how they are started.

Pure functions over data packaged with the code; no network, no cluster. The workspace controller and its webhook are
the callers:

    catalog        preset by name (aliases and Hugging Face ids too)
    instance_types   instance type by name: its GPUs
    sizing           how much GPU memory a model takes, how many nodes that is
    planning         all of it put together: runtime, GPUs, disk, timeouts
    commands         the command line of the plan
    admission        the same questions asked at admission time
"""
