"""Published benchmarks, from where the user has them: one reader each, their official rule, and an exact one beside it."""
