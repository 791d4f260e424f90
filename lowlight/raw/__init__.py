"""RAW files in: reading, levels, white balance, packing and developing."""
