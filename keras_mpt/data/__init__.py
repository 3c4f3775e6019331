"""Batches of several tasks, and streams of them."""
