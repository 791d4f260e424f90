"""The shared nouns: frames, pictures, batches, configurations and errors."""
