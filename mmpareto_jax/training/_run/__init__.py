"""One run, from a config to its result.

A config and a task come in; a trained state goes out, with the files of its directory
and a `Result`. It may import the library, ``data`` and, of ``training``, `_tasks` and
what that may import.
"""
