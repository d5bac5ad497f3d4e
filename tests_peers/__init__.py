"""Other people's libraries, on the same weights: `make test-peers`, in an environment of its own."""
