"""E-steps: from rows and parameters to sufficient statistics and scores."""
