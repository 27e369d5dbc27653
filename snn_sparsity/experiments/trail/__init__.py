"""The paper's section 5 as experiments: where zeros come from, and how far they travel.

Only what can vary is correlated. Within an epoch the weights of a trained network are constant, and so are exact zeros at most inputs:
correlations with either do not exist. Here null shares vary over random networks of the paper's own model (``two_layers``), pruning
varies them in a trained network (``pruning``), and near zeros vary over images (``images``); ``document`` says what was found.
"""
