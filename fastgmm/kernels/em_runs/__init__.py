"""Whole runs of EM on few rows, in compiled code."""
