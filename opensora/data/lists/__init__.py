"""Data lists and annotation files: reading, making and checking them."""
