"""Headwater beside other ways to keep a vector index in step with a folder: ``make bench-peers``."""
