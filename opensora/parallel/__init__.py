"""Many devices: which rank does what, collectives, the frames of a video or the optimizer's states shared out."""
