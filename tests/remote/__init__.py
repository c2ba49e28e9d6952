"""Back ends that keep telemetry elsewhere."""
