#!/bin/sh
# Kafka's own command for topics.
set -eu
exec java -Xmx256m -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$(dirname "$0")/jars/*" \
  org.apache.kafka.tools.TopicCommand "$@"
