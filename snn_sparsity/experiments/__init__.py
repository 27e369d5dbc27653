"""Experiments on trained networks that put the paper's claims to the test, each with one command."""
