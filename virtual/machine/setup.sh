#!/bin/sh
# Turn a virtual Pi into the content of a card. machine.py runs this once, as root, in a container of the virtual Pi's image, with
# the packages in packages.txt as arguments. /card gets the kernel, the initial RAM disk and the root file system.
set -eu
export DEBIAN_FRONTEND=noninteractive

# Only what this machine needs to find its root: it is smaller, and decompressed sooner.
mkdir -p /etc/initramfs-tools/conf.d
echo MODULES=list >/etc/initramfs-tools/conf.d/tig-pi
printf '%s\n' virtio_pci virtio_blk ext4 >/etc/initramfs-tools/modules
# Its last field has the initial RAM disk check the root, as on Raspberry Pi OS.
cat >/etc/fstab <<EOF
PARTUUID=$DISK_ID-01 /boot/firmware vfat defaults 0 2
PARTUUID=$DISK_ID-02 / ext4 defaults,noatime 0 1
LABEL=tig-pi-feed /srv/tig-pi-feed ext4 ro,nofail,x-systemd.device-timeout=300s 0 0
EOF
mkdir -p /srv/tig-pi-feed

apt-get update -q
apt-get install -y -q --no-install-recommends "$@"
apt-get clean

# The first account is created by the first boot, with the keys of the card.
userdel --remove pi
rm -f /etc/sudoers.d/010_pi-nopasswd

sh /root/raspberry-pi-os.sh
locale-gen >/dev/null
echo LANG=en_GB.UTF-8 >/etc/default/locale
# Network interfaces have their old names: eth0.
ln -s /dev/null /etc/systemd/network/99-default.link
# Nothing here depends on these, and each costs seconds: the generators whenever systemd reads its units again.
mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/systemd-*; do
  case $generator in */systemd-fstab-generator) ;; *) ln -s /dev/null "/etc/systemd/system-generators/${generator##*/}" ;; esac
done
systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer user@.service
# systemd would otherwise update what the packages have just made.
touch /etc/.updated /var/.updated
: >/etc/machine-id

mv /boot/vmlinuz-* /card/vmlinuz
mv /boot/initrd.img-* /card/initrd.img
# Without the file systems that are mounted in the container: /proc, /sys, /card, …
mount --bind / /mnt
truncate --size="$ROOT_SIZE" /card/root.ext4
mke2fs -q -t ext4 -L rootfs -d /mnt /card/root.ext4
chmod 644 /card/*
