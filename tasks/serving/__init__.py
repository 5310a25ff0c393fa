"""Serving layouts: the released bytes, in the folders that a model server reads.

``source`` finds a release and ``folders`` places its files; ``triton_layout``,
``tfserving_layout`` and ``kserve_layout`` know one server each; ``command`` is the command line.
"""
