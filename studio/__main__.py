"""``python -m studio``: see :mod:`studio.cli`."""

from studio.cli import main

if __name__ == "__main__":
    main()
