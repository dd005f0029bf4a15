"""`python -m prunedge` is `prunedge`."""

from prunedge.cli.app import main

main()
