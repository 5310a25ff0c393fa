"""After a failed comparison: every tensor of both sides, the node that differs first, its cut-out.

What is here runs in child processes; ``tasks/locating.py`` calls it.
"""
