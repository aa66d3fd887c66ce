#!/bin/bash
# Installs esl_apps on a machine of its own, by the commands of README.rst, and makes a real call there.
#
#   fresh_machine.sh wheel WHEEL      fresh_machine.sh deb FILE.deb
#
# The machine is this one's file system under an overlay, without the sources, in a network, process and mount namespace
# of its own: whatever is installed or changed there is gone afterwards. It has a stock FreeSWITCH from
# /usr/local/freeswitch, Redis and Debian's Python, and no network; pip finds the packages of $WHEELS (a folder that
# `pip download` filled). Needs root, and pjsua2 for the phones in $PHONES_PYTHON.
set -euo pipefail
kind=$1 package=$(readlink -f "$2")
here=$(dirname "$(readlink -f "$0")")
: "${WHEELS:?a folder with the wheels of all that esl_apps needs}" "${PHONES_PYTHON:=python3}"
FS=/usr/local/freeswitch

if [ "${FRESH_MACHINE:-}" = "" ]; then
    export FRESH_MACHINE=1 WHEELS PHONES_PYTHON
    exec unshare --net --mount --pid --fork --kill-child "$(readlink -f "$0")" "$@"
fi

# The machine -----------------------------------------------------------------------------------------
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/machine
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/machine
M=/mnt/machine
rm -rf "$M"/etc/esl_apps "$M"/var/lib/esl_apps "$M"/opt/esl_apps
for hidden in /work /root; do mount -t tmpfs tmpfs "$M$hidden"; done
mount -t proc proc "$M/proc"
mount --rbind /dev "$M/dev"
mount -t tmpfs tmpfs "$M/tmp"
mkdir "$M/tmp/wheels"
cp "$WHEELS"/* "$package" "$M/tmp/wheels/"
cp "$here/../../README.rst" "$M/tmp/README.rst"
ip link set lo up
# A network card whose cable ends in the wall. Stock FreeSWITCH has no event socket on a machine without IPv6.
ip link add eth0 type veth peer name wall
ip addr add 10.99.0.1/24 dev eth0
ip -6 addr add fd00:99::1/64 dev eth0
ip link set wall up
ip link set eth0 up
ip route add default via 10.99.0.254

in_machine() {
    chroot "$M" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        PIP_NO_INDEX=1 PIP_FIND_LINKS=/tmp/wheels PIP_CONFIG_FILE=/dev/null "$@"
}
# Wait until a file has a line: at most a minute.
wait_for() {
    for _ in $(seq 120); do
        grep -q "$1" "$2" 2> /dev/null && return
        sleep 0.5
    done
    cat "$2"
    return 1
}
# Start the node as the script says, without systemd. $node: its process.
start_node() {
    : > /mnt/node
    in_machine sh -c "$start" > /mnt/node 2>&1 < /dev/null &
    wait_for 'ready$' /mnt/node
    node=$(pgrep -x esl-apps)
}
say() { printf '\n== %s\n' "$*"; }

say "A stock FreeSWITCH and Redis"
in_machine redis-server --save '' --daemonize yes > /dev/null
# Without a network, the stock configuration's question to a STUN server would end the switch.
sed -i 's/"stun-set"/"set"/; s/=stun:[a-z.]*/=$${local_ip_v4}/' "$M$FS/etc/freeswitch/vars.xml"
in_machine $FS/bin/freeswitch -nonat -nc -np > /dev/null
for _ in $(seq 120); do
    in_machine $FS/bin/fs_cli -x 'sofia status' 2> /dev/null | grep -q 'internal.*RUNNING' && break
    sleep 0.5
done
for _ in $(seq 20); do domain=$(in_machine $FS/bin/fs_cli -x 'eval $${domain}') && break; done
"$PHONES_PYTHON" "$here/phones.py" "$domain" > /mnt/phones 2>&1 &
wait_for registered /mnt/phones
echo "phones 1000 and 1001 are registered at $domain"

# The commands of the README --------------------------------------------------------------------------
say "Commands of README.rst"
python3 "$here/readme_commands.py" "$here/../../README.rst" "$kind" > /mnt/commands
while IFS= read -r -d '' command; do
    printf '$ %s\n' "$command"
    in_machine sh -c "cd /tmp/wheels && $command" > /mnt/output 2>&1 < /dev/null || { cat /mnt/output; exit 1; }
    cat /mnt/output
    # A namespace has no systemd; the script says how to start the node instead.
    if grep -q 'No systemd runs here' /mnt/output; then
        start=$(sed -n '/^No systemd runs here/,$p' /mnt/output | tr '\n' ' ' | sed 's/.*the node: //')
        start_node
        echo "(node started by hand: $start)"
    fi
done < /mnt/commands

say "Manual page and completions"
if [ "$kind" = deb ]; then
    in_machine man esl-apps | head -3
    in_machine bash -c '. /usr/share/bash-completion/completions/esl-apps; complete -p esl-apps'
else
    in_machine sh -c 'esl-apps files man/esl-apps.1 | man -l - | head -3'
fi
in_machine esl-apps calls

say "The call"
wait_for '^1001 CONFIRMED' /mnt/phones
sleep 2
if [ "$kind" = deb ]; then
    say "The package is installed again, and the node restarted, while the two talk"
    in_machine dpkg -i "/tmp/wheels/$(basename "$package")"
    kill -TERM "$node"
    while [ -e "/proc/$node" ]; do sleep 0.2; done
    start_node
    in_machine esl-apps calls
    if grep -q DISCONNECTED /mnt/phones; then exit 1; fi
fi
in_machine $FS/bin/fs_cli -p "$(sed -n s/^FS_PASSWORD=//p "$M"/etc/esl_apps/esl_apps.env)" -x hupall > /dev/null
record=$(in_machine redis-cli BRPOP enigma:notifications:cdr 10)
cat /mnt/phones
echo "$record"
grep -q '"end_reason":"answered"' <<< "$record"
if [ "$kind" = deb ]; then
    say "Purged"
    kill -TERM "$node"
    while [ -e "/proc/$node" ]; do sleep 0.2; done
    in_machine dpkg --purge esl-apps
    left=$(find "$M" -xdev -path '*esl*apps*' ! -path '*.before-esl_apps' ! -path "$M$FS/*" ! -path "$M/tmp/*" ! -path '*/var/cache/man/*' 2> /dev/null)
    echo "left behind: ${left:-nothing}"
    [ -z "$left" ]
fi
say "The first call went through, by $kind"
