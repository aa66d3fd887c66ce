#!/usr/bin/env bash
# A client of esl_apps with curl: place a call, follow it, read its record, fetch its recording.
# Needs bash, curl, jq and redis-cli. README.rst lists the environment variables. A webhook needs a server: verify.sh
# checks what yours has received.
set -euo pipefail

CDRS=enigma:notifications:cdr
# Seconds in which a call is placed or given up. The key of a request whose node has died is free again after 60.
PATIENCE=90

ask() { curl --silent --show-error --fail-with-body --header "Authorization: Bearer $API_TOKEN" "$@"; }

# Place a call, exactly one. The key makes it safe to ask again: if no whole answer comes, and for 429, 503 and a first
# request that still runs after as many seconds as Retry-After says.
place() {
  local answer status after body pause=1 refused="" tries=0 deadline=$((SECONDS + PATIENCE))
  body=$(mktemp)
  while ((tries < 5 && SECONDS < deadline)); do
    if answer=$(curl --silent --show-error --max-time 30 --output "$body" \
      --write-out '%{http_code} %header{retry-after}' "$API_URL/click2dial/calls" \
      --header "Authorization: Bearer $API_TOKEN" --header "Idempotency-Key: $contact_ref" --json "$1"); then
      read -r status after <<< "$answer"
      case $status in
        2*) jq --raw-output .call_ref "$body"; rm "$body"; return ;;
        429 | 503) tries=$((tries + 1)) ;;
        *)
          # The body says which field is wrong, and what was expected.
          jq --exit-status 'any(.errors[]; .code == "in_progress")' "$body" > /dev/null || { refused=yes; break; }
          ;;
      esac
      pause=${after:-1}
    else
      pause=$((2 ** tries)) tries=$((tries + 1))
    fi
    sleep "$pause"
  done
  if [ -n "$refused" ]; then echo "refused: $(< "$body")" >&2; else echo "no answer; the call may have been placed" >&2; fi
  rm "$body"
  return 1
}

# Print type and data of each event, once and in order, over as many connections as it takes.
events() {
  local last="" event="" data="" line
  # Otherwise curl would notice the end of this script at the next heartbeat.
  trap 'kill "$!"; exit' TERM
  while true; do
    while IFS= read -r line; do
      case $line in
        "id: "*) last=${line#id: } ;;
        "event: "*) event=${line#event: } ;;
        "data: "*) data=${line#data: } ;;
        "")
          [ -z "$data" ] || printf '%s %s\n' "$event" "$data"
          [ -n "$data" ] || [ -n "$event" ] || printf 'connected {}\n'
          event="" data=""
          ;;
      esac
    # Heartbeats come every 15 s: after 40 s of silence the connection is dead.
    done < <(ask --no-buffer --speed-limit 1 --speed-time 40 ${last:+--header "Last-Event-ID: $last"} \
      "$API_URL/click2dial/events?contact_ref=$contact_ref")
    sleep 1
  done
}

# Pop records until a call's. A popped record is gone: a real program keeps each.
from_list() {
  local record
  while record=$(redis-cli -u "$REDIS_URL" --raw BRPOP "$CDRS" 30 | tail -1) && [ -n "$record" ]; do
    if jq --exit-status --arg ref "$1" '.payload.call_ref == $ref' <<< "$record" > /dev/null; then
      jq --compact-output .payload <<< "$record"
      return
    fi
  done
  echo "no record" >&2
  return 1
}

# Read records of a stream in a consumer group until a call's.
from_stream() {
  local answer id record
  redis-cli -u "$REDIS_URL" XGROUP CREATE "$CDRS:stream" billing 0 MKSTREAM > /dev/null || true # it may exist
  while true; do
    # The stream's name, the entry's id, and then its fields: seq, a number, json and a text.
    mapfile -t answer < <(redis-cli -u "$REDIS_URL" --raw XREADGROUP GROUP billing worker-1 COUNT 1 BLOCK 30000 \
      STREAMS "$CDRS:stream" ">")
    [ ${#answer[@]} -ge 6 ] || { echo "no record" >&2; return 1; }
    id=${answer[1]} record=${answer[5]}
    # Acknowledge it once it is stored. With "0" for ">", what is not acknowledged comes again.
    redis-cli -u "$REDIS_URL" XACK "$CDRS:stream" billing "$id" > /dev/null
    if jq --exit-status --arg ref "$1" '.payload.call_ref == $ref' <<< "$record" > /dev/null; then
      jq --compact-output .payload <<< "$record"
      return
    fi
  done
}

contact_ref=example-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
order=$(jq --null-input --arg agent "$AGENT" --arg callee "$CALLEE" --arg outbound_id "$OUTBOUND_ID" \
  --arg contact_ref "$contact_ref" '{$agent, $callee, $outbound_id, $contact_ref}')

ref=""
exec 3< <(events)
reader=$!
trap 'kill "$reader" 2> /dev/null || true' EXIT
while read -r event data <&3; do
  case $event in
    connected)
      # Once the events are connected, so that nothing is missed.
      [ -n "$ref" ] || { ref=$(place "$order"); echo "placed $ref"; }
      ;;
    call) echo "event $(jq --raw-output .state <<< "$data")" ;;
    record) echo "ended $(jq --raw-output .end_reason <<< "$data")"; break ;;
  esac
done

if [ "${RECORDS:-list}" = stream ]; then record=$(from_stream "$ref"); else record=$(from_list "$ref"); fi
echo "record $(jq --raw-output '"\(.end_reason) seq \(.seq)"' <<< "$record")"

recording=$(jq --raw-output '.recording_url // empty' <<< "$record")
if [ -n "$recording" ]; then
  ask --retry 3 --output "$RECORDING" "$API_URL/click2dial/recordings/$recording"
  echo "recording $(stat --format %s "$RECORDING") bytes"
fi
