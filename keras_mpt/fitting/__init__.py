"""`fit`, `evaluate` and `predict` on checked data."""
