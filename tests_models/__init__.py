"""Real models, explained end to end: see `make test-models`."""
