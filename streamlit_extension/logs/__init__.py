"""How log lines look and which way they leave."""
