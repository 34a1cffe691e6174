"""Parts of which architectures are made: attention, linear attention, MLPs and experts, image encoders.

Each computes parameters and cache from the keys of a config.json. May not happen in here: names of models, files.
"""
