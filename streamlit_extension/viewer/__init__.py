"""The telemetry page: what the embedded store holds, health and alerts, for a person with a browser."""
