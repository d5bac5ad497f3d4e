"""Metrics of explanations, under the names of Quantus."""
