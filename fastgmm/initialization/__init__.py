"""Starts of EM."""
