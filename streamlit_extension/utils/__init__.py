"""The parts that can be used alone."""
