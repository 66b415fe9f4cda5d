"""What is remembered between runs: the analysis cache, the run store, and the keys of both."""
