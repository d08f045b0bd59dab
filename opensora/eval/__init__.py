"""The published version's script for `opensora evaluate`."""
