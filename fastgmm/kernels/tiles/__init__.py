"""Tiles, transposed blocks of rows that stay in cache, and operations on them."""
