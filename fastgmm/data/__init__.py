"""Sources of rows, readers of files and tables, samples, and output files."""
