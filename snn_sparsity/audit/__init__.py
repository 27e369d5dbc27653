"""The audit: how far a robustness number can be believed."""
