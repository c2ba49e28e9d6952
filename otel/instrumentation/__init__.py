"""Adapters to the libraries that an application is made of."""
