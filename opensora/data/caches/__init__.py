"""Caches of text embeddings and latents, computed once before training."""
