"""Inputs too large to be explained at once: part by part, with the same map."""
