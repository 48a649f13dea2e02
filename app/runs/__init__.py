"""The folder of a run, its processes and its tracking. May import the core."""
