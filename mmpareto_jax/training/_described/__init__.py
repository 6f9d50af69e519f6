"""What people are told of methods and data sets, and names as they are shown.

Nothing comes in; out go sentences by name, and names that fit. It may import, of
``training``, `_choices` alone, and nothing heavy: it is read for ``mmpareto --help``.
"""
