"""`opensora upscale`: options, plan and run."""
