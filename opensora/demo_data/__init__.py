"""The demo data set: build and render it, and evaluate models trained on it."""
