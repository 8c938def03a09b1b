"""The preset catalog and the sizing of models: the models, their memory, and their command lines.

Pure functions of packaged data. The workspace controller, its webhook and the CLI call them:

    catalog        preset by name, alias or Hugging Face ID
    instance_types   GPUs of an instance type, by name
    sizing           GPU memory and number of nodes of a model
    planning         plan of a workload: runtime, GPUs, disk, timeouts
    commands         command line of a plan
    admission        checks at admission
"""
