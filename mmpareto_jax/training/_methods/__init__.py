"""What each ``--method`` adds to the one loop.

A config comes in; a `Method` goes out, which knows how the objectives' gradients are
combined and what else changes. It may import the library, ``models`` and, of
``training``, `_choices`, `_options`, `_config` and `_batch`.
"""
