"""PEFT directories and state dicts, to and from layer weights."""
