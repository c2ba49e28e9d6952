#!/bin/sh
# One node that is reached on loopback alone: `opensearch FOLDER PORT`.
set -eu
here="$(dirname "$0")"
exec java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$here/jars/*" "$here/OpenSearch.java" "$1" "$2"
