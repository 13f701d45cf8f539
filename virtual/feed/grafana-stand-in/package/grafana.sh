#!/bin/sh
# `grafana`, `grafana-server` and `grafana-cli` as commands: the program with the paths of the package.
set -e

home=${GRAFANA_HOME:-/usr/share/grafana}
case ${0##*/} in
  grafana-server) exec "$home/bin/grafana" server "$@" ;;
  grafana-cli) command=cli ;;
  *)
    command=${1:---help}
    [ $# -eq 0 ] || shift
    ;;
esac
case $command in
  -*) exec "$home/bin/grafana" "$command" "$@" ;;
esac

DATA_DIR=/var/lib/grafana LOG_DIR=/var/log/grafana PLUGINS_DIR=/var/lib/grafana/plugins
CONF_FILE=/etc/grafana/grafana.ini PROVISIONING_CFG_DIR=/etc/grafana/provisioning
if [ -f /etc/default/grafana ]; then
  . /etc/default/grafana
fi
exec "$home/bin/grafana" "$command" --homepath="$home" --config="$CONF_FILE" \
  --configOverrides="cfg:default.paths.provisioning=$PROVISIONING_CFG_DIR cfg:default.paths.data=$DATA_DIR cfg:default.paths.logs=$LOG_DIR cfg:default.paths.plugins=$PLUGINS_DIR" \
  "$@"
