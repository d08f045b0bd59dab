"""Several devices: groups of ranks, collectives, shared frames of a video, sharded optimizer states."""
