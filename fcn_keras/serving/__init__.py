"""An exported model's signatures, a server for them, and clients."""

MAX_SIDE = 2048  # an exported model sees longer photographs downscaled to it
MAX_PIXELS = 64_000_000  # and refuses those with more pixels
