"""The published version's scripts for `opensora generate` and `opensora embed-text`."""
