"""The thesis' MNIST experiments: train a digit network, score it, draw its figures."""
