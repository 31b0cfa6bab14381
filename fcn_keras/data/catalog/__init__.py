"""Data sets that TensorFlow Datasets (TFDS) knows or has written, by name."""
