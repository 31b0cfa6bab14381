"""How well a model does: measures, figures, the model card, the report."""
