"""Runs that learn: their configuration, their loop, their state and their packed data."""
