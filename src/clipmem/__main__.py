"""`python -m clipmem` is the `clipmem` command."""

from clipmem.cli import main

if __name__ == "__main__":
    main()
