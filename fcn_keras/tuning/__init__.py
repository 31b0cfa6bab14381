"""Hyperparameter search: `search` (what is searched), `tuner` (Optuna), `summary`."""
