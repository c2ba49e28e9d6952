module github.com/open-telemetry/opentelemetry-collector-contrib/exporter/kafkaexporter

go 1.24.0
