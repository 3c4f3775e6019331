"""Bytes on disk: state dicts, config files, atomic writes. It knows no models."""
