"""Where rows come from and results go: sources, blocks, readers, samples, output files."""
