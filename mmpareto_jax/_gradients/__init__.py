"""From a function of several losses to the gradients of each, stacked as rows.

In come that function and its parameters, out go rows with the groups that say which
objectives they belong to. It may import jax and numpy, and no other room: what changes
here, changes because JAX does.
"""
