"""Training: the core for any checkpoint, how `mini` is made, evaluation."""
