"""`python -m hf_biotune` is `hf-biotune`."""

from .cli import main

if __name__ == "__main__":
    main()
