"""What there is between the losses' gradients, told without changing any step.

In come a function of several losses and an optimiser's update, out go measures of their
inner products, a table and a sentence; no rule is known here. It may import
``_combine``, ``_gramians`` and ``_gradients``.
"""
