"""Planted faults: what broken exporters did to sound models, and what should have caught it.

Each fault is a small function on an ONNX file that our own converters wrote (``goods``). The
gate must catch all of them and pass the untouched models; the diagnosis must name the stage and
the node. ``benchmarks/faults.py`` puts other checks beside the gate.
"""
