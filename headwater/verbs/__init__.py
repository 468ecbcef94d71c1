"""Verbs of the command line that have a module of their own. Like ``headwater.cli`` they know both producer and worker,
and import them inside functions only."""
