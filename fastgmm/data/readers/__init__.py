"""Readers of files, tables, stores and iterables of rows."""
