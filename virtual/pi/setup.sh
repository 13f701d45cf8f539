#!/bin/sh
# Turns a plain Debian into a blank virtual Raspberry Pi. pi.py runs it once, as root, inside the image being built;
# arguments: the packages of packages.txt.
set -eu
export DEBIAN_FRONTEND=noninteractive

# Container images of Debian throw downloaded packages away; a Pi keeps them, and pi.py takes them into its cache.
rm -f /etc/apt/apt.conf.d/docker-*

# ca-certificates may come with the packages below or be there already; either way the host's private CAs join in.
apt-get update -q
apt-get install -y -q --no-install-recommends "$@"
update-ca-certificates

# As on Raspberry Pi OS: first user with id 1000, who may use sudo without a password.
useradd --create-home --uid 1000 --shell /bin/bash --groups adm,dialout,plugdev,sudo,users pi
echo 'pi ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/010_pi-nopasswd
chmod 0440 /etc/sudoers.d/010_pi-nopasswd
install --directory --owner=pi --group=pi --mode=0700 /home/pi/.ssh

# An identity belongs to a Pi, not to the image: pi.py brings the host key, systemd makes the machine id.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id

# Two things that a container cannot have: a console to log in on, and a network of its own to wait for.
systemctl mask console-getty.service getty.target systemd-networkd-wait-online.service
systemctl set-default multi-user.target

apt-get clean
