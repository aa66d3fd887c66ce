#!/bin/bash
# Builds a Debian package of a wheel:  build.sh WHEEL FOLDER
#
# The package has a virtual environment of its own in /usr/lib/esl_apps, for the Python of the Debian that builds it.
# pip takes what the wheel needs from where it is configured to (PIP_INDEX_URL, PIP_FIND_LINKS).
set -euo pipefail
wheel=$(readlink -f "$1") output=$(readlink -f "$2") here=$(dirname "$(readlink -f "$0")")
python=${PYTHON:-/usr/bin/python3}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct)}
umask 022
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

# The virtual environment, made here and used there.
home=/usr/lib/esl_apps
venv=$tree$home
"$python" -m venv --without-pip "$venv"
version=$("$python" -c 'import sys; print("python3.%d" % sys.version_info[1])')
"${PIP_PYTHON:-$python}" -m pip --python "$venv/bin/python3" install --quiet --no-compile --no-warn-script-location "$wheel"
find "$venv/bin" -mindepth 1 ! -name 'python*' -delete
rm -f "$venv"/bin/python*
ln -s "/usr/bin/$version" "$venv/bin/python3"
sed -i "s#^home = .*#home = /usr/bin#; s#^executable = .*#executable = /usr/bin/$version#; /^command = /d" "$venv/pyvenv.cfg"
find "$venv" -name 'direct_url.json' -delete
rm -rf "$venv/include"
printf '#!%s/bin/python3\nfrom esl_apps.__main__ import main\n\nmain()\n' "$home" > "$venv/bin/esl-apps"
chmod 755 "$venv/bin/esl-apps"
# RECORD lists scripts and hashes of files that are gone; dpkg has its own list.
find "$venv" -path '*.dist-info/RECORD' -delete
"/usr/bin/$version" -m compileall -q --invalidation-mode unchecked-hash -s "$tree" -p / "$venv/lib"

# The other files, from the wheel itself.
run() { PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$venv/lib/$version/site-packages" "$python" -m esl_apps "$@"; }
number=$(run --version)
file() {
    mkdir -p "$(dirname "$tree$2")"
    run files "$1" > "$tree$2"
}
file completions/esl-apps.bash /usr/share/bash-completion/completions/esl-apps
file completions/esl-apps.zsh /usr/share/zsh/vendor-completions/_esl-apps
file completions/esl-apps.fish /usr/share/fish/vendor_completions.d/esl-apps.fish
file man/esl-apps.1 /usr/share/man/man1/esl-apps.1
gzip -9n "$tree/usr/share/man/man1/esl-apps.1"
file systemd/esl-apps.service /lib/systemd/system/esl-apps.service
sed -i '/^# esl_apps under systemd/,/^$/d; s#/opt/esl_apps/venv/bin/esl-apps#/usr/bin/esl-apps#
        s#serve -c /etc/esl_apps/esl_apps.yml#serve $ESL_APPS_OPTIONS -c /etc/esl_apps/esl_apps.yml#
        s#^EnvironmentFile=.*#EnvironmentFile=-/etc/default/esl-apps\n&#
        s#^Documentation=.*#Documentation=man:esl-apps(1)#
        s#^After=.*#&\n\# `esl-apps init /etc/esl_apps` makes it.\nConditionPathExists=/etc/esl_apps/esl_apps.yml#' \
    "$tree/lib/systemd/system/esl-apps.service"
install -D -m 644 "$here/esl-apps.default" "$tree/etc/default/esl-apps"
install -D -m 644 "$here/esl-apps.sysusers" "$tree/usr/lib/sysusers.d/esl-apps.conf"
install -D -m 644 "$here/esl-apps.tmpfiles" "$tree/usr/lib/tmpfiles.d/esl-apps.conf"
install -D -m 644 "$here/../../LICENSE" "$tree/usr/share/doc/esl-apps/copyright"
install -D -m 644 "$here/../../CHANGELOG.rst" "$tree/usr/share/doc/esl-apps/changelog"
gzip -9n "$tree/usr/share/doc/esl-apps/changelog"
mkdir -p "$tree/usr/bin"
ln -s ../lib/esl_apps/bin/esl-apps "$tree/usr/bin/esl-apps"

# The package
mkdir "$tree/DEBIAN"
echo /etc/default/esl-apps > "$tree/DEBIAN/conffiles"
for script in postinst prerm postrm; do install -m 755 "$here/$script" "$tree/DEBIAN/$script"; done
sed -e "s/@VERSION@/$number/; s/@ARCHITECTURE@/$(dpkg --print-architecture)/; s/@PYTHON@/$version/" \
    -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$tree" | cut -f1)/" "$here/control" > "$tree/DEBIAN/control"
homepage=$(sed -n 's/^Project-URL: Homepage, //p' "$venv"/lib/python3*/site-packages/esl_apps-*.dist-info/METADATA)
[ -z "$homepage" ] || sed -i "s#^Priority: .*#&\nHomepage: $homepage#" "$tree/DEBIAN/control"
(cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zxz --build "$tree" "$output/esl-apps_${number}_$(dpkg --print-architecture).deb"
