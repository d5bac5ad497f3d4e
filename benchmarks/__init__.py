"""Scripts that print the tables in the README; run them with `python -m benchmarks.NAME`."""
