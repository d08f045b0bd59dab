"""The published version's name for `opensora evaluate`."""
