#!/bin/sh
# Turn a plain Debian into a blank virtual Raspberry Pi. pi.py runs this once, as root, while it builds the image, with the
# packages in packages.txt as arguments.
set -eu
export DEBIAN_FRONTEND=noninteractive

# Debian's container images delete downloaded packages. A Pi keeps them, and pi.py copies them to its cache.
rm -f /etc/apt/apt.conf.d/docker-*

apt-get update -q
apt-get install -y -q --no-install-recommends "$@"
# Add the private CAs of this machine, which pi.py has copied, also if ca-certificates was already installed.
update-ca-certificates

# As on Raspberry Pi OS, the first user has id 1000 and may use sudo without a password.
useradd --create-home --uid 1000 --shell /bin/bash --groups adm,dialout,plugdev,sudo,users pi
echo 'pi ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/010_pi-nopasswd
chmod 0440 /etc/sudoers.d/010_pi-nopasswd
install --directory --owner=pi --group=pi --mode=0700 /home/pi/.ssh

# Each Pi has its own host key, which pi.py copies to it, and its own machine id, which systemd creates.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id

# A container has no console for a login, and no network that systemd-networkd manages.
systemctl mask console-getty.service getty.target systemd-networkd-wait-online.service
systemctl set-default multi-user.target

apt-get clean
