"""Tests of the ways that log lines leave."""
