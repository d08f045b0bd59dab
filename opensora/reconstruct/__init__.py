"""`opensora reconstruct`: options, plan and run."""
