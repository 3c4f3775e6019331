"""Prompts on their way to other servers, and back: numbers, files and requests."""
