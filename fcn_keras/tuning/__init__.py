"""Hyperparameter search: `search` (what is searched), `tuner` (KerasTuner), `report`."""
