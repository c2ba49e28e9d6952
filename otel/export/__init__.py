"""Sends encoded telemetry over HTTP and gRPC, and says what each answer means."""
