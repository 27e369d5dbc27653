"""A grid of runs: which there are, how far each has come, and how they are run; nothing of training is imported here."""
