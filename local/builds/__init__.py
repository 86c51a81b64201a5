"""Builds what is slow to build, and keeps it in the cache."""
