"""MiniLM with a linear head for each task."""
