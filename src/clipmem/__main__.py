"""Entry point of `python -m clipmem`."""

from clipmem.cli import main
from clipmem.study.engines import watch_launcher

if __name__ == "__main__":
    watch_launcher()  # before the slow imports
    main()
