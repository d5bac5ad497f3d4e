"""Golden maps of the shipped models, and the script that makes them."""
