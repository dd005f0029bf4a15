"""What every stage uses: files that are there whole or not at all, checksums, tracing, several
processes, the machine's trouble.
"""
