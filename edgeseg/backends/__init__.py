"""The code behind the targets: compile a graph, check an engine, open it, run it."""
