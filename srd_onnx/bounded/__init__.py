"""What takes too much memory at once: piece by piece, with the same map and ledger."""
