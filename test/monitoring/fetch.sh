#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Puts Debian's prometheus and promtool into dist/prometheus, unless they are
# installed. Its package is not: installing it starts a server on port 9090,
# which is the agent's.
set -eu
command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
dir=$(cd "$(dirname "$0")/../.." && pwd)/dist/prometheus
[ -x "$dir/usr/bin/prometheus" ] && [ -x "$dir/usr/bin/promtool" ] && exit 0
command -v apt-get >/dev/null || { echo "install prometheus and promtool by hand" >&2; exit 1; }
echo "fetching prometheus"
mkdir -p "$dir"
cd "$dir"
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
apt-get download -qq prometheus 2>/dev/null || { $sudo apt-get update -qq && apt-get download -qq prometheus; }
dpkg-deb -x prometheus_*.deb .
rm -f prometheus_*.deb
