"""What the command ``mmpareto`` understands, does, shows and completes.

A command line comes in; text on the terminal and an exit code go out. Its modules may
import, inside their functions, every public name: ``--help`` waits for none of them. At
their top they may import, of ``training``, `_choices`, `_described` and `_options`,
which are light.
"""
