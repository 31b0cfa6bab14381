"""A server for exported models, and clients."""
