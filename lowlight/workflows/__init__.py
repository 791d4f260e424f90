"""Loops over photos, pairs and steps; they give rows and never print."""
