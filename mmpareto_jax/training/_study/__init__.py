"""Many runs, and what they say together.

A plan of configs comes in; records of its runs go out, and their means, paired
differences and tables. It may import, of ``training``, `_run` and what that may import;
nothing draws here.
"""
