"""Hugging Face folders as keras-hub backbones that compute what transformers does."""
