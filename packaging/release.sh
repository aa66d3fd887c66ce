#!/bin/bash
# Builds all that a release consists of into FOLDER, and checks it:  release.sh FOLDER
#
#   what pyproject.toml has to say before strangers install it (UNPUBLISHED=1 goes on without) ·
#   the sdist and the wheel, built twice and compared · twine check --strict · the Debian package ·
#   sbom.cdx.json (CycloneDX) and licences.txt of what the wheel has and installs · hadolint and the compose schema ·
#   pip-audit of what the wheel installs
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "$0")")")
mkdir -p "$1"
output=$(readlink -f "$1")
python=$root/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" "$root/tools/published.py" "$root/pyproject.toml" || [ -n "${UNPUBLISHED:-}" ]
"$python" "$root/tools/dist.py" "$output" 2> "$work/log" || { cat "$work/log"; exit 1; }
"$python" "$root/tools/dist.py" "$work/again" > /dev/null 2>&1
for file in "$work"/again/*; do cmp "$file" "$output/$(basename "$file")"; done
echo "Built twice: the same bytes"
wheel=$(ls "$output"/*.whl)
"$root/.venv/bin/twine" check --strict "$output"/*.whl "$output"/*.tar.gz

# Everything that the wheel installs, in an environment of its own.
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "$wheel"
"$work/venv/bin/pip" uninstall -q -y --disable-pip-version-check setuptools pip 2> /dev/null || true
"$python" "$root/tools/sbom.py" "$work/venv" "$output"

if [ -x /usr/bin/dpkg-deb ]; then
    PIP_PYTHON=$python "$root/packaging/deb/build.sh" "$wheel" "$output"
fi

"$root/.venv/bin/hadolint" "$root/Containerfile"
"$root/.venv/bin/check-jsonschema" --builtin-schema vendor.compose-spec "$root/compose.yml"

# Last, as it asks PyPI: a release without an answer isn't audited.
"$root/.venv/bin/pip-audit" --disable-pip --no-deps --strict --progress-spinner off -r "$output/requirements.txt" \
    2> "$work/log" || { tail -1 "$work/log"; echo "Not audited, or not clean: no release"; exit 1; }
ls -l "$output"
