"""Kept between runs: the analysis cache, the run store, and their keys."""
