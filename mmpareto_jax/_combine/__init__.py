"""From rows, or losses, and a rule to one gradient, or one loss, for any optimiser.

In come a rule of ``weightings`` and the groups, out go Optax transformations with
their state, and the functions that stand in their place: at the features, and before
differentiation. It may import ``weightings``, ``_gramians`` and ``_gradients``.
"""
