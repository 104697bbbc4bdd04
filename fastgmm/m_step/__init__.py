"""M-steps: from sufficient statistics to parameters, and the bound they raise."""
