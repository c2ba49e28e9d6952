"""Alerts: rules as data, pure evaluation, one file for each sink, and what is done about them."""
