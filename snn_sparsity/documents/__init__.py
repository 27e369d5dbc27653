"""Tables and pages, for any reader of runs."""
