"""How well a model does: metrics, figures, the model card, the report."""
