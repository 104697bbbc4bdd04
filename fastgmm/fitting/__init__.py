"""How a fit gets from its start to its end."""
