"""`python -m greensv` is the `greensv` command."""

from greensv.cli.main import main

main()
