"""Checks, their schedule and their status: decisions without HTTP."""
