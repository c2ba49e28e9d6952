"""The telemetry substrate: knows OpenTelemetry, and nothing of the application."""
