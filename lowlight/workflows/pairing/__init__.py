"""Pairs of RAW files: decoded once, checked, and generated for trying things out."""
