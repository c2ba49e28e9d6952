"""Tools of the project, each run by itself."""
