#!/usr/bin/env bash
# Verify a webhook that a server has received (https://www.standardwebhooks.com):
#   verify.sh WEBHOOK_ID WEBHOOK_TIMESTAMP WEBHOOK_SIGNATURE < BODY
# Prints the body if the message is genuine and at most five minutes old; otherwise fails. Needs bash, openssl, xxd.
set -euo pipefail

id=$1 timestamp=$2 signatures=$3
[[ $timestamp =~ ^[0-9]{1,12}$ ]] && age=$(($(date +%s) - timestamp)) && [ "${age#-}" -le 300 ] || {
  echo "too old, or no timestamp" >&2
  exit 1
}
body=$(mktemp)
trap 'rm -f "$body"' EXIT
# In a file: the signature is that of the bytes as they came, with line feeds at the end.
cat > "$body"
key=$(printf %s "${WEBHOOK_SECRET#whsec_}" | base64 --decode | xxd -plain -cols 256)
expected=v1,$({ printf '%s.%s.' "$id" "$timestamp"; cat "$body"; } \
  | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64 --wrap=0)
# One for each secret, while the secret is being changed.
for given in $signatures; do
  if [ "$given" = "$expected" ]; then
    cat "$body"
    exit
  fi
done
echo "wrong signature" >&2
exit 1
