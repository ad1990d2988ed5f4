"""`python -m skillfactory`."""

from skillfactory.cli import main

if __name__ == "__main__":
    main()
