"""What is remembered between runs: the analysis cache, the run store, their keys."""
