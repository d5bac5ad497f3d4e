"""Sharing ratios as data: scalars that carry any number of targets and fields without the network."""
