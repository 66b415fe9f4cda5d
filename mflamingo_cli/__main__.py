"""`python -m mflamingo_cli`."""

from mflamingo_cli.cli import main

if __name__ == "__main__":
    main()
