"""What the command ``mmpareto`` does, shows and completes.

The arguments that ``cli`` parsed come in; text on the terminal and an exit code go out.
Its modules may import, inside their functions, every public name: ``--help`` waits for
none of them.
"""
