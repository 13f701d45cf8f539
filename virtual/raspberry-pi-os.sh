#!/bin/sh
# Give a virtual Pi or a virtual machine with Debian trixie what matters of Raspberry Pi OS: the settings of cloud-init and netplan, the
# locale, and the service that replaces the host keys. It is run once, as root, when their packages are installed.
set -eu
mkdir -p /boot/firmware /usr/lib/netplan
cat >/etc/cloud/cloud.cfg.d/99_raspberry-pi.cfg <<EOF
datasource_list: [NoCloud, None]
datasource: {NoCloud: {seedfrom: "file:///boot/firmware"}}
ssh_deletekeys: false
ssh_genkeytypes: []
EOF
echo "en_GB.UTF-8 UTF-8" >/etc/locale.gen
echo 'network: {version: 2, renderer: NetworkManager}' >/usr/lib/netplan/00-network-manager-all.yaml
chmod 600 /usr/lib/netplan/00-network-manager-all.yaml
cat >/usr/lib/systemd/system/regenerate_ssh_host_keys.service <<EOF
[Unit]
Before=ssh.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'rm -f /etc/ssh/ssh_host_*_key*; ssh-keygen -A'
[Install]
WantedBy=multi-user.target
EOF
systemctl enable regenerate_ssh_host_keys.service
