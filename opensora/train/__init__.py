"""Training: one loop, what a step is for each model, and checkpoints that survive anything."""
