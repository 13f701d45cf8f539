#!/bin/sh
# Does the same as playbooks/site.yml, as one would write it by hand: the same packages from the same feed, the same
# accounts, databases, dashboards and flows, until every service answers. bench/stack compares the playbook with it, and
# playbooks/verify.yml must pass on the resulting Pi. It does not check what is already installed, so it works only once.
#
# Run it as root on a blank Pi:
#
#   by-hand.sh DIRECTORY one-by-one   the plain way: for one service after the other, add the vendor's repository, install,
#                                     configure, start
#   by-hand.sh DIRECTORY at-once      the fastest way that we know: install all packages in one transaction that starts
#                                     nothing, write all files, then start everything together
#
# DIRECTORY/secrets    one file per password, as in an inventory's secrets/
# DIRECTORY/files      files that are already rendered, by their path on the Pi: telegraf.d, dashboards, alert rules, flows,
#                      the broker's accounts, the drop-ins of the units, and the programs that these start
set -eu
export DEBIAN_FRONTEND=noninteractive
secrets=$1/secrets
files=$1/files

# --- helpers ---

secret() { cat "$secrets/$1"; }
answers() { # URL: wait until it answers
  until curl --silent --fail --output /dev/null "$1"; do sleep 0.2; done
}
vendor() { # REPOSITORY: add it; here, every repository is the feed
  cat >"/etc/apt/sources.list.d/$1.sources" <<EOF
Types: deb
URIs: file:///srv/tig-pi-feed
Suites: ./
Signed-By: /srv/tig-pi-feed/feed.asc
EOF
}
hold() { # PACKAGE VERSION
  printf 'Package: %s\nPin: version %s\nPin-Priority: 995\n' "$1" "$2" >"/etc/apt/preferences.d/$1"
}
install_packages() { apt-get install --quiet --yes --no-install-recommends "$@"; }
start() { # UNIT: start it with its current configuration
  systemctl daemon-reload
  systemctl enable --quiet "$1"
  systemctl restart "$1"
}
ready() { # PATH...: copy rendered files with their permissions
  for path; do
    mkdir -p "$(dirname "/$path")"
    cp -pr "$files/$path" "$(dirname "/$path")"
  done
}
drop_in() { # SERVICE [UNIT...]: copy the drop-ins of its unit, its other units, and the programs that check its state files
  ready "etc/systemd/system/$1.service.d" usr/local/libexec usr/local/lib/tig-pi
  shift
  for unit; do ready "etc/systemd/system/$unit"; done
}

# --- configuration of each service ---

configure_time_and_journal() {
  timedatectl set-timezone Europe/Stockholm
  cat >/etc/chrony/conf.d/tig-pi.conf <<EOF
allow 10.0.0.0/8
allow 172.16.0.0/12
allow 192.168.0.0/16
allow fd00::/8
local stratum 10
EOF
  ready etc/systemd/system/chrony.service.d
  mkdir -p /etc/systemd/journald.conf.d
  cat >/etc/systemd/journald.conf.d/tig-pi.conf <<EOF
[Journal]
Storage=volatile
RuntimeMaxUse=32M
ForwardToSyslog=no
EOF
}

configure_mosquitto() {
  drop_in mosquitto
  ready usr/local/lib/mosquitto/accounts.c etc/mosquitto/accounts

  cat >/etc/mosquitto/mosquitto.conf <<EOF
per_listener_settings false
allow_anonymous false
password_file /etc/mosquitto/passwd
acl_file /etc/mosquitto/acl
plugin /usr/local/lib/mosquitto/accounts.so
plugin_opt_accounts /etc/mosquitto/accounts
plugin_opt_save 60
listener 1883
max_connections 1000
message_size_limit 16384
max_packet_size 1048576
max_inflight_messages 10000
max_queued_messages 100000
max_queued_bytes 33554432
set_tcp_nodelay true
persistence true
persistence_location /var/lib/mosquitto/
autosave_interval 600
sys_interval 10
pid_file /run/mosquitto/mosquitto.pid
log_dest stdout
log_timestamp false
log_type error
log_type warning
log_type notice
EOF
  cat >/etc/mosquitto/acl <<EOF
user mats
topic read tig/#
topic read tig-alert/#
topic write mats/test

user matslopy4
topic read tig/matslopy4/command
topic write tig/matslopy4/reading
topic write tig/matslopy4/status
topic write tig/matslopy4/crash
topic write tig/matslopy4/answer

user node_red
topic read tig/#
topic read mats/test
topic readwrite tig-alert/#

user telegraf
topic read tig/+/reading
topic read tig/+/status
topic read mats/test
topic read \$SYS/#

user tig-pi-operator
topic read tig/+/answer
topic read tig/+/status
topic write tig/+/command

user tig-pi-probe
topic read tig/+/reading
topic read tig/+/status
topic write tig/tig-pi-probe/reading
EOF
  umask 077
  for account in mats matslopy4 node_red telegraf tig-pi-operator tig-pi-probe; do
    echo "$account:$(secret mosquitto/$account)"
  done >/etc/mosquitto/passwd
  mosquitto_passwd -U /etc/mosquitto/passwd
  umask 022
  chown mosquitto:mosquitto /etc/mosquitto/passwd /etc/mosquitto/acl /etc/mosquitto/accounts
  chmod 0600 /etc/mosquitto/acl /etc/mosquitto/accounts
}

configure_influxdb() {
  drop_in influxdb influxdb-watch.service influxdb-watch.timer

  cat >/etc/influxdb/influxdb.conf <<EOF
reporting-disabled = true
bind-address = "127.0.0.1:8088"
[meta]
  dir = "/var/lib/influxdb/meta"
[data]
  dir = "/var/lib/influxdb/data"
  wal-dir = "/var/lib/influxdb/wal"
  wal-fsync-delay = "0s"
  index-version = "tsi1"
  query-log-enabled = false
  cache-max-memory-size = "128m"
  cache-snapshot-memory-size = "8m"
  cache-snapshot-write-cold-duration = "1h"
  max-concurrent-compactions = 1
  compact-throughput = "8m"
[coordinator]
  query-timeout = "60s"
  max-select-series = 1000
  max-select-buckets = 100000
  max-concurrent-queries = 100
[monitor]
  store-enabled = false
[subscriber]
  enabled = false
[continuous_queries]
  log-enabled = false
[http]
  bind-address = "127.0.0.1:8086"
  auth-enabled = true
  log-enabled = false
  pprof-enabled = false
  max-row-limit = 100000
EOF
}

create_accounts_in_influxdb() {
  # Until the first account exists, the database accepts this query without a password.
  answers http://127.0.0.1:8086/ping
  umask 077
  printf 'user = "admin:%s"\n' "$(secret influxdb/admin)" >/root/influxdb.curl
  umask 022
  influxql() { # statements on standard input
    curl --silent --show-error --fail --config /root/influxdb.curl --data-urlencode q@- http://127.0.0.1:8086/query >/root/influxdb.answer
    if grep error /root/influxdb.answer; then exit 1; fi
  }
  echo "CREATE USER admin WITH PASSWORD '$(secret influxdb/admin)' WITH ALL PRIVILEGES" | influxql
  influxql <<EOF
CREATE DATABASE iot;
CREATE RETENTION POLICY averages_5m ON iot DURATION 0s REPLICATION 1;
CREATE RETENTION POLICY averages_1h ON iot DURATION 0s REPLICATION 1;
CREATE RETENTION POLICY host ON iot DURATION 30d REPLICATION 1 SHARD DURATION 1d;
CREATE CONTINUOUS QUERY averages_5m ON iot BEGIN
  SELECT mean(*), min(*), max(*), count(*) INTO "iot"."averages_5m".:MEASUREMENT FROM "iot"."autogen"."mqtt_consumer"
  WHERE "device" != 'tig-pi-probe' GROUP BY time(5m), *
END;
CREATE CONTINUOUS QUERY averages_1h ON iot BEGIN
  SELECT mean(*), min(*), max(*), count(*) INTO "iot"."averages_1h".:MEASUREMENT FROM "iot"."autogen"."mqtt_consumer"
  WHERE "device" != 'tig-pi-probe' GROUP BY time(1h), *
END;
CREATE USER telegraf WITH PASSWORD '$(secret influxdb/telegraf)';
GRANT ALL ON iot TO telegraf;
CREATE USER grafana WITH PASSWORD '$(secret influxdb/grafana)';
GRANT READ ON iot TO grafana
EOF
  rm /root/influxdb.curl /root/influxdb.answer
}

configure_telegraf() {
  drop_in telegraf

  cat >/etc/telegraf/telegraf.conf <<EOF
[agent]
  interval = "1m"
  round_interval = true
  flush_interval = "15s"
  metric_batch_size = 1000
  metric_buffer_limit = 10000
  skip_processors_after_aggregators = true
EOF
  cp "$files"/etc/telegraf/telegraf.d/* /etc/telegraf/telegraf.d/
  umask 077
  cat >/etc/telegraf/telegraf.env <<EOF
MQTT_PASSWORD="$(secret mosquitto/telegraf)"
INFLUXDB_PASSWORD="$(secret influxdb/telegraf)"
EOF
  umask 022
}

configure_grafana() {
  drop_in grafana-server
  cat >/etc/grafana/grafana.ini <<EOF
[paths]
data = /var/lib/grafana
logs = /var/log/grafana
plugins = /var/lib/grafana/plugins
provisioning = /etc/grafana/provisioning
[server]
http_port = 3000
[database]
wal = true
[security]
admin_user = admin
admin_password = \$__file{/etc/grafana/secrets/admin_password}
secret_key = \$__file{/etc/grafana/secrets/secret_key}
disable_gravatar = true
[users]
allow_sign_up = false
allow_org_create = false
home_page = d/readings
[auth.anonymous]
enabled = false
[dashboards]
min_refresh_interval = 10s
[snapshots]
external_enabled = false
[analytics]
enabled = false
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false
feedback_links_enabled = false
[news]
news_feed_enabled = false
[plugins]
preinstall_disabled = true
preinstall_auto_update = false
public_key_retrieval_disabled = true
[log]
mode = console
level = warn
[smtp]
enabled = false
EOF
  rm -rf /etc/grafana/provisioning
  cp -r "$files"/etc/grafana/dashboards "$files"/etc/grafana/provisioning /etc/grafana/
  mkdir -p /etc/grafana/secrets/provisioning /var/lib/grafana/plugins
  secret grafana/admin >/etc/grafana/secrets/admin_password
  secret grafana/secret_key >/etc/grafana/secrets/secret_key
  secret influxdb/grafana >/etc/grafana/secrets/provisioning/influx.password
  chown -R root:grafana /etc/grafana
  chown grafana:grafana /var/lib/grafana/plugins
  find /etc/grafana -type f -exec chmod 0640 {} +
}

configure_node_red() {
  ready etc/node-red etc/systemd/system/node-red.service usr/local/libexec usr/local/lib/tig-pi
  install -d -o node-red -g node-red -m 0750 /var/lib/node-red
  install -o node-red -g node-red -m 0600 "$files"/var/lib/node-red/*.json /var/lib/node-red/
  chgrp node-red /etc/node-red/*
}

# --- the two ways ---

one_by_one() {
  apt-get update --quiet
  install_packages chrony
  configure_time_and_journal
  systemctl restart systemd-journald
  start chrony

  install_packages mosquitto tcc # which compiles the broker's plugin
  configure_mosquitto
  start mosquitto

  vendor influxdata
  hold influxdb '1.*'
  apt-get update --quiet
  install_packages influxdb
  configure_influxdb
  start influxdb
  create_accounts_in_influxdb

  hold telegraf '1.39.3*'
  install_packages telegraf
  configure_telegraf
  start telegraf

  vendor grafana
  apt-get update --quiet
  install_packages grafana
  configure_grafana
  start grafana-server
  answers http://127.0.0.1:3000/api/health

  vendor node-red
  apt-get update --quiet
  install_packages node-red
  configure_node_red
  start node-red
  answers http://127.0.0.1:1880/auth/login
}

at_once() {
  vendor tig-pi-feed
  hold influxdb '1.*'
  hold telegraf '1.39.3*'
  # Do not start services before their configuration is in place.
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod +x /usr/sbin/policy-rc.d
  apt-get update --quiet
  install_packages chrony mosquitto tcc influxdb telegraf grafana node-red
  rm /usr/sbin/policy-rc.d

  configure_time_and_journal
  configure_mosquitto
  configure_influxdb
  configure_telegraf
  configure_grafana
  configure_node_red

  systemctl daemon-reload
  systemctl restart systemd-journald
  systemctl enable --quiet chrony mosquitto influxdb telegraf grafana-server node-red
  systemctl restart --no-block chrony mosquitto influxdb node-red
  create_accounts_in_influxdb
  systemctl restart telegraf grafana-server
  answers http://127.0.0.1:3000/api/health
  answers http://127.0.0.1:1880/auth/login
}

case $2 in
  one-by-one) one_by_one ;;
  at-once) at_once ;;
esac
