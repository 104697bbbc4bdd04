"""The two passes over the rows, and the arithmetic of each covariance layout."""
