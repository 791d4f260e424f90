"""Editing a picture at a coarse level of its pyramid."""
