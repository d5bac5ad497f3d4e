"""Compiled models kept on the disk, so that a second process need not compile them again."""
