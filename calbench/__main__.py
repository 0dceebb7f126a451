"""`python -m calbench`."""

from calbench.cli import main

if __name__ == "__main__":
    main()
