"""Real and written music with labels: packages, recordings, sheet music, pseudo-labels of published models."""
