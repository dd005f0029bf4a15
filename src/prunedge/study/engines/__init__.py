"""Where the trials of a study run: processes on this machine, or a Ray cluster."""
