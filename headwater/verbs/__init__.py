"""The commands that look into one folder's state, one module per verb. Like cli.py they may use producer and worker,
and like there only inside of functions."""
