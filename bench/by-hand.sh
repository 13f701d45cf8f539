#!/bin/sh
# What playbooks/site.yml does, as one would write it down by hand: the same packages from the same feed, the same
# accounts, databases, dashboards and flows, and the same end: every service answers. bench/stack holds the playbook
# against it. It is honest in being fast (all packages in one go, no check of anything that is there already) and in
# leaving out nothing that somebody would notice: playbooks/verify.yml must pass on the Pi that it leaves behind.
#
#   by-hand.sh DIRECTORY      as root on a blank Pi
#
# DIRECTORY/secrets    passwords, one a file, as in an inventory's secrets/
# DIRECTORY/files      what one would have ready, below its path on the Pi: telegraf.d, dashboards, alert rules, flows
set -eu
export DEBIAN_FRONTEND=noninteractive
secrets=$1/secrets
files=$1/files
secret() { cat "$secrets/$1"; }
answers() { # URL: wait until it does
  until curl --silent --fail --output /dev/null "$1"; do sleep 0.2; done
}

# --- packages ---

cat >/etc/apt/sources.list.d/tig-pi-feed.sources <<EOF
Types: deb
URIs: file:///srv/tig-pi-feed
Suites: ./
Signed-By: /srv/tig-pi-feed/feed.asc
EOF
for pin in 'influxdb 1.*' 'telegraf 1.39.3*'; do
  printf 'Package: %s\nPin: version %s\nPin-Priority: 995\n' "${pin% *}" "${pin#* }" >"/etc/apt/preferences.d/${pin% *}"
done
# They start below, with their configuration in place.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get update --quiet
apt-get install --quiet --yes --no-install-recommends chrony mosquitto influxdb telegraf grafana node-red
rm /usr/sbin/policy-rc.d

# --- time and journal ---

timedatectl set-timezone Europe/Stockholm
cat >/etc/chrony/conf.d/tig-pi.conf <<EOF
allow 10.0.0.0/8
allow 172.16.0.0/12
allow 192.168.0.0/16
allow fd00::/8
local stratum 10
EOF
mkdir -p /etc/systemd/system/chrony.service.d /etc/systemd/journald.conf.d
# A container has its host's clock, and may not set it.
cat >/etc/systemd/system/chrony.service.d/tig-pi.conf <<EOF
[Unit]
ConditionCapability=
[Service]
EnvironmentFile=
Environment="DAEMON_OPTS=-x -F 1"
EOF
cat >/etc/systemd/journald.conf.d/tig-pi.conf <<EOF
[Journal]
Storage=volatile
RuntimeMaxUse=32M
ForwardToSyslog=no
EOF

# --- units: after the network, and never given up ---

for unit in mosquitto influxdb telegraf; do
  mkdir -p /etc/systemd/system/$unit.service.d
  {
    printf '[Unit]\nWants=network-online.target\nAfter=network-online.target\nStartLimitIntervalSec=0\n'
    printf '[Service]\nRestartSec=1\n'
    [ $unit != telegraf ] || echo EnvironmentFile=/etc/telegraf/telegraf.env
  } >/etc/systemd/system/$unit.service.d/tig-pi.conf
done

# --- Mosquitto ---

cat >/etc/mosquitto/mosquitto.conf <<EOF
per_listener_settings false
allow_anonymous false
password_file /etc/mosquitto/passwd
acl_file /etc/mosquitto/acl
listener 1883
max_connections 1000
message_size_limit 16384
max_packet_size 1048576
max_inflight_messages 10000
max_queued_messages 100000
max_queued_bytes 33554432
persistent_client_expiration 14d
set_tcp_nodelay true
persistence true
persistence_location /var/lib/mosquitto/
autosave_interval 60
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

user node_red
topic read tig/#
topic read mats/test
topic readwrite tig-alert/#

user telegraf
topic read tig/+/reading
topic read tig/+/status
topic read mats/test
topic read \$SYS/#

user tig-pi-probe
topic read tig/+/reading
topic read tig/+/status
topic write tig/tig-pi-probe/reading
EOF
umask 077
for account in mats matslopy4 node_red telegraf tig-pi-probe; do
  echo "$account:$(secret mosquitto/$account)"
done >/etc/mosquitto/passwd
mosquitto_passwd -U /etc/mosquitto/passwd
umask 022
chown mosquitto:mosquitto /etc/mosquitto/passwd /etc/mosquitto/acl
chmod 0600 /etc/mosquitto/acl

# --- InfluxDB ---

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
[coordinator]
  query-timeout = "60s"
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
EOF

# --- Telegraf ---

cat >/etc/telegraf/telegraf.conf <<EOF
[agent]
  interval = "15s"
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

# --- Grafana ---

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

# --- Node-RED ---

mkdir -p /etc/node-red
cp -r "$files"/etc/node-red/. /etc/node-red/
cp "$files"/etc/systemd/system/node-red.service /etc/systemd/system/
install -d -o node-red -g node-red -m 0750 /var/lib/node-red
install -o node-red -g node-red -m 0600 "$files"/var/lib/node-red/*.json /var/lib/node-red/
chgrp node-red /etc/node-red/*

# --- run ---

systemctl daemon-reload
systemctl restart systemd-journald
systemctl enable --quiet chrony mosquitto influxdb telegraf grafana-server node-red
systemctl restart --no-block chrony mosquitto influxdb node-red

# The database first has nobody, and then nobody gets in without an account.
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
CREATE RETENTION POLICY averages ON iot DURATION 0s REPLICATION 1;
CREATE RETENTION POLICY host ON iot DURATION 30d REPLICATION 1 SHARD DURATION 1d;
CREATE CONTINUOUS QUERY averages ON iot BEGIN
  SELECT mean(*) INTO "iot"."averages".:MEASUREMENT FROM "iot"."autogen"."mqtt_consumer"
  WHERE "device" != 'tig-pi-probe' GROUP BY time(10m), *
END;
CREATE USER telegraf WITH PASSWORD '$(secret influxdb/telegraf)';
GRANT WRITE ON iot TO telegraf;
CREATE USER grafana WITH PASSWORD '$(secret influxdb/grafana)';
GRANT READ ON iot TO grafana
EOF
rm /root/influxdb.curl /root/influxdb.answer
systemctl restart telegraf grafana-server
answers http://127.0.0.1:3000/api/health
answers http://127.0.0.1:1880/auth/login
