"""What there is to learn.

A config comes in; a `Task` goes out: a model, its data, losses and measures. It may
import ``data``, ``models`` and, of ``training``, `_methods` and what that may import.
"""
