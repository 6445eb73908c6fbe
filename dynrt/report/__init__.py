"""Plots from JSON records and from pictures that the caller gives. Nothing here runs a network."""
