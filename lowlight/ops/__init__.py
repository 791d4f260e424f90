"""Pure functions on tensors and arrays: no files, no state, no models."""
