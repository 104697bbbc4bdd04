"""Fits: runs of EM, samples, moves and checkpoints, from a start to an end."""
