"""`opensora generate`: options, plan, estimate and run."""
