// The Prometheus operator: the tests read its CustomResourceDefinitions out of the module; nothing is built.
module deploy/operator

go 1.26.7

require github.com/prometheus-operator/prometheus-operator v0.85.0
