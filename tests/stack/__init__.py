"""Against the real collector, Prometheus, Jaeger and VictoriaLogs."""
