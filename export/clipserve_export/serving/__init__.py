"""How a network is served: options that the operator chooses, and the specs leave open.

    choices    the options of one model (Serving)
    options    the same as options of the command line
    config     the same in config.pbtxt: written into it, and read back
    changes    the options of a model in a repository: as they are, changed, and checked

The options are stored in config.pbtxt and nowhere else. So a config is right when some choice of options produces it,
and an export without options keeps the ones that were chosen before.
"""
