"""``python -m xrecon_bundle`` is ``xrecon``."""

from .cli import main

if __name__ == "__main__":
    main()
