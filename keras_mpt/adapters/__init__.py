"""PEFT directories to and from what a model has learned."""
