"""lowlight turns dark RAW photographs into bright, clean, natural ones."""

__version__ = "0.1.0"
