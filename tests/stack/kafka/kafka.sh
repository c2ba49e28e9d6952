#!/bin/sh
# A broker that is its own controller: `kafka server.properties [option of the format…]`. The first start makes its folder.
set -eu
jars="$(dirname "$0")/jars/*"
logging="-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
properties="$1"
shift
java -Xmx256m $logging -cp "$jars" kafka.tools.StorageTool format --standalone --ignore-formatted \
  --cluster-id c3R4LXRlc3QtY2x1c3Rlcg --config "$properties" "$@"
exec java -Xms256m -Xmx512m $logging -cp "$jars" kafka.Kafka "$properties"
