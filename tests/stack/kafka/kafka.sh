#!/bin/sh
# A broker that is its own controller: `kafka server.properties`. Its folder is made at the first start.
set -eu
jars="$(dirname "$0")/jars/*"
logging="-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
java -Xmx256m $logging -cp "$jars" kafka.tools.StorageTool format --standalone --ignore-formatted \
  --cluster-id c3R4LXRlc3QtY2x1c3Rlcg --config "$1"
exec java -Xms256m -Xmx512m $logging -cp "$jars" kafka.Kafka "$1"
