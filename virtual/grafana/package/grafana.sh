#!/bin/sh
# The commands `grafana-server` and `grafana-cli`: run the program with the paths of the package.
set -e

home=${GRAFANA_HOME:-/usr/share/grafana}
if [ "${0##*/}" = grafana-server ]; then
  exec "$home/bin/grafana" server "$@"
fi

DATA_DIR=/var/lib/grafana LOG_DIR=/var/log/grafana PLUGINS_DIR=/var/lib/grafana/plugins
CONF_FILE=/etc/grafana/grafana.ini PROVISIONING_CFG_DIR=/etc/grafana/provisioning
if [ -f /etc/default/grafana ]; then
  . /etc/default/grafana
fi
exec "$home/bin/grafana" cli --homepath="$home" --config="$CONF_FILE" --pluginsDir="$PLUGINS_DIR" \
  --configOverrides="cfg:default.paths.provisioning=$PROVISIONING_CFG_DIR cfg:default.paths.data=$DATA_DIR cfg:default.paths.logs=$LOG_DIR cfg:default.paths.plugins=$PLUGINS_DIR" \
  "$@"
