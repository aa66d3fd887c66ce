#!/bin/bash
# Tries the Debian package under a systemd of its own:  under_systemd.sh FILE.deb
#
# Boots this machine's file system under an overlay, without a network and without its other services; all is gone
# afterwards. Needs root and systemd-nspawn ($NSPAWN, or apt install systemd-container). The switch is the sandbox.
set -euo pipefail
package=$(readlink -f "$1")
: "${NSPAWN:=systemd-nspawn}"

if [ "${UNDER_SYSTEMD:-}" = "" ]; then
    export UNDER_SYSTEMD=1 NSPAWN
    exec unshare --mount --pid --cgroup --fork --kill-child "$(readlink -f "$0")" "$@"
fi

mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/machine
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/machine
M=/mnt/machine
rm -rf "$M"/etc/esl_apps "$M"/var/lib/esl_apps "$M"/opt/esl_apps "$M"/etc/machine-id
find "$M/etc/systemd/system" -name '*.wants' -exec rm -rf {} +
for hidden in /work /root; do mount -t tmpfs tmpfs "$M$hidden"; done
cp "$package" "$M/var/tmp/esl-apps.deb"
cat > "$M/etc/systemd/system/tried.service" <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/bash /var/tmp/steps.sh
StandardOutput=file:/var/tmp/told
StandardError=file:/var/tmp/told
ExecStopPost=/bin/systemctl --no-block poweroff --force
UNIT
mkdir -p "$M/etc/systemd/system/multi-user.target.wants"
ln -s ../tried.service "$M/etc/systemd/system/multi-user.target.wants/"

cat > "$M/var/tmp/steps.sh" <<'STEPS'
set -euo pipefail
show() { systemctl show -p "$1" --value esl-apps; }
# expect PROPERTY PATTERN: within half a minute
expect() {
    for _ in $(seq 60); do
        [[ $(show "$1") == $2 ]] && { echo "ok   $1: $(show "$1")"; return; }
        sleep 0.5
    done
    echo "FAIL $1 is $(show "$1"), not $2"
    journalctl -u esl-apps --no-pager | tail -20
    exit 1
}
fails() { if "$@" > /dev/null 2>&1; then echo "FAIL $*: went well"; exit 1; fi; }
step() { printf '\n== %s\n' "$*"; }

ip link set lo up
redis-server --save '' --daemonize yes > /dev/null
step "Installed: enabled, and waits for a configuration"
dpkg -i /var/tmp/esl-apps.deb > /dev/null
expect UnitFileState enabled
expect ConditionResult no

step "Started once there is one"
esl-apps init /etc/esl_apps --region ZA --yes --domain 127.0.0.1 --freeswitch /nowhere > /dev/null
. /etc/esl_apps/esl_apps.env
systemd-run --quiet --unit=sandbox esl-apps sandbox --password "$FS_PASSWORD"
sleep 2
sh /etc/esl_apps/install.sh > /dev/null
expect StatusText 'ready, 0 calls'

step "A call"
curl -sS http://127.0.0.1:8300/click2dial/calls -H "Authorization: Bearer $ACME_TOKEN" -H 'Content-Type: application/json' \
    -d '{"agent": "1000", "callee": "1001", "outbound_id": "27115550000", "contact_ref": "first-call"}' > /dev/null
expect StatusText 'ready, 1 call'

step "Reloads: good, refused by the node, wrong"
config=/etc/esl_apps/esl_apps.yml
cp $config /var/tmp/good.yml
systemctl reload esl-apps
expect StatusText 'ready, ? call*'
sed -i 's/8300/8301/' $config
systemctl reload esl-apps
expect StatusText 'reload refused: integrators: *'
echo 'nonsense: 1' >> $config
fails systemctl reload esl-apps
expect ActiveState active

step "A wrong configuration is not tried again"
fails systemctl restart esl-apps
expect ActiveState failed
expect ExecMainStatus 2
expect NRestarts 0

step "Killed, then stopped: started again both times"
cp /var/tmp/good.yml $config
systemctl reset-failed esl-apps
systemctl start esl-apps
systemctl kill -s KILL esl-apps
expect NRestarts 1
expect StatusText 'ready, *'
kill -STOP "$(show MainPID)"
sleep 20
expect NRestarts 2
expect StatusText 'ready, *'

step "Installed again over itself, with an operator's options"
sed -i 's/^ESL_APPS_OPTIONS=.*/ESL_APPS_OPTIONS=--workers 2/' /etc/default/esl-apps
before=$(show MainPID)
dpkg -i /var/tmp/esl-apps.deb > /dev/null
[ "$before" != "$(show MainPID)" ]
expect StatusText '2 of 2 workers run'
systemd-analyze security --threshold=15 esl-apps --no-pager | tail -1

step "Installed again, with a configuration that it can't use"
before=$(show MainPID)
echo 'nonsense: 1' >> $config
fails dpkg -i /var/tmp/esl-apps.deb
[ "$before" = "$(show MainPID)" ]
expect ActiveState active
cp /var/tmp/good.yml $config
dpkg --configure esl-apps > /dev/null
[ "$before" != "$(show MainPID)" ]
expect ActiveState active

step "Purged"
dpkg --purge esl-apps > /dev/null
for file in /etc/esl_apps /var/lib/esl_apps /etc/default/esl-apps; do fails ls -d $file; done
step "All went well"
STEPS

timeout 300 "$NSPAWN" --quiet --register=no --keep-unit --private-network -D "$M" --boot > /mnt/boot 2>&1 < /dev/null || true
cat "$M/var/tmp/told" || tail /mnt/boot
grep -q 'All went well' "$M/var/tmp/told"
