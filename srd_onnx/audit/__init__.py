"""Audits: one model and a folder of images, hours of work that survives interruption, a report that can be checked."""
