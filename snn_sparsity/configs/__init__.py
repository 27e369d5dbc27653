"""Shipped configurations, as YAML files."""
