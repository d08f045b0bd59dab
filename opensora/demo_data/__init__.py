"""The demo data set: rendering, building, and the evaluation of models trained on it."""
