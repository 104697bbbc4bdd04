"""A mixture's parameters and the sufficient statistics of rows under it."""
