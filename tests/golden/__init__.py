"""Golden results: `cases` computes them, `results` reads and writes them, `make` computes and stores them again."""
