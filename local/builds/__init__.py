"""Builds what is slow to build and is kept in the cache."""
