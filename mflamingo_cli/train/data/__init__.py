"""Rows to train on: files of records in the formats that people have, read where they lie, one at a time."""
