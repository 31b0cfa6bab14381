"""A small server for one machine, with TF Serving's REST API."""
