#!/usr/bin/env bash
# Curator's service discovery on the ZooKeeper at 127.0.0.1:PORT, under BASE (/services): a client, no server.
#   curator.sh list NAME               prints "ID ADDRESS PORT PAYLOAD" of each instance
#   curator.sh register NAME ID PORT   registers, prints a line, and takes it out when its input ends
# It runs on the jars of `zookeeper` and of `curator`, and needs a JDK.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need PORT
classpath=
jars="$(root_of zookeeper)/usr/share/java"
for jar in "$(root_of curator)"/usr/share/java/*.jar "$jars"/zookeeper{,-jute}.jar "$jars"/slf4j-{api,nop}.jar \
    "$jars"/netty-*.jar; do
    classpath="$classpath:$jar"
done
exec java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$classpath" \
    "$(dirname "${BASH_SOURCE[0]}")/Curator.java" "127.0.0.1:$PORT" "${BASE:-/services}" "$@"
