"""A model as a file that other runtimes open; it knows models only as an argument."""
