"""From rows to their Gramian, and the small problems that are posed on it, solved.

In come stacked gradients or a matrix [K, K], out go Gramians, weighted sums and points
such as the one of least norm; nothing here knows a rule. It may import ``_gradients``
(groups, stacks, mesh axes).
"""
