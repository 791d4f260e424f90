"""Scores on pairs and pictures: protocols, methods, baselines, rows and the report page."""
