"""What a user runs: reconstruct, segment, evaluate, simulate."""
