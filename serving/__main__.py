"""`python -m serving` is `flotilla`."""

from serving.cli import main

main()
