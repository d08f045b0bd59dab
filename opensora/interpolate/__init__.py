"""`opensora interpolate`: options, plan and run."""
