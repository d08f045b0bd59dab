"""The published version's names for `opensora generate` and `opensora embed-text`."""
