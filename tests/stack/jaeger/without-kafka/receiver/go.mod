module github.com/open-telemetry/opentelemetry-collector-contrib/receiver/kafkareceiver

go 1.24.0
