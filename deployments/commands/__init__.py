"""The subcommands of ``conveyor``, a module for each kind of errand."""
