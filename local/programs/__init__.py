"""Runs programs: once, or under a supervisor that restarts them."""
