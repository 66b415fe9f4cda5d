"""Training of small Music Flamingo models: data with exact truth, one loop, objectives, evaluation. Needs the `train` extra."""
