"""`python -m clipmem` is the `clipmem` command."""

from clipmem.cli import main
from clipmem.study.engines import watch_launcher

if __name__ == "__main__":
    watch_launcher()  # before anything is imported that takes time
    main()
