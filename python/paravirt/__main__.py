"""`python -m paravirt` is the command `paravirt`."""

from paravirt.cli import main

main()
