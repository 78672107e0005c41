"""The written and drawn report."""
