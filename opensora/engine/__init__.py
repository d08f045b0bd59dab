"""Engines run networks that are written as blocks, pure functions of their weights."""
