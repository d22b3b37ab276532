#!/bin/sh
# Before the package goes. An upgrade is no removal: dpkg says "upgrade", rpm counts what stays.
set -e
case "$1" in
  remove | 0)
    if [ -d /run/systemd/system ]; then
      systemctl disable --now tailxds-drain.service tailxds-envoy.service tailxds.service || true
    fi
    ;;
esac
