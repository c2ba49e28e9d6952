"""The checks themselves, one file for each kind."""
