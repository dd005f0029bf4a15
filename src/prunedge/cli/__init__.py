"""One file per verb: parses, calls the library, prints."""
