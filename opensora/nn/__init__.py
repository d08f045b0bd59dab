"""Numerical building blocks: the only place that knows which device runs."""
