"""How good a model is on music it was not trained on, beside the truth, constant answers, chance and other estimators."""
