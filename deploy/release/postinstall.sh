#!/bin/sh
# After an install or an upgrade of the package. It starts nothing: the units need settings first. What runs goes on with
# the old program until it is restarted, for a restart is a person's to time.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
