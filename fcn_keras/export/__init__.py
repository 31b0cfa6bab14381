"""A model -> a SavedModel for TF Serving, or a file of another format."""

MAX_SIDE = 2048  # an exported model sees longer photographs downscaled to it
MAX_PIXELS = 64_000_000  # and refuses those with more pixels
