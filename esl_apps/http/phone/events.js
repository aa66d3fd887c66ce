// Follows calls by the node's Server-Sent Events. EventSource can't send a token, so this reads the body of a fetch.

// Milliseconds until the next connection.
const PAUSES = [1000, 2000, 5000, 10000];
// Milliseconds without a word after which a connection is dead: the node says something every 15 s.
const SILENCE = 40000;
// Answers that trying again doesn't change.
const FINAL = { 401: "the token isn't valid", 403: "the token doesn't allow it", 404: "this server has none", 422: "not understood" };

// Whether a state comes behind another one. A call's status and its events are two sources, and either may be ahead.
const ORDER = ["queued", "ringing", "agent_ringing", "agent_answered", "callee_ringing", "bridged", "ended"];
export const isLater = (state, than) => ORDER.indexOf(state) > ORDER.indexOf(than);

// Calls `heard(data, kind)` for each event, over as many connections as it takes, until `signal` is aborted. Returns why
// the node refuses. `token()` resolves to a token, or fails; with `final` in the error it isn't asked again.
// `opened(headers)` is called for each connection, before its events: it can ask for what they don't tell.
export async function follow({ address, token, heard, opened, signal }) {
  let last = "";
  for (let tried = 0; !signal.aborted; tried++) {
    try {
      const headers = { Authorization: `Bearer ${await token()}` };
      const stream = await fetch(address, { credentials: "omit", signal, headers: last ? { ...headers, "Last-Event-ID": last } : headers });
      if (FINAL[stream.status]) return `${FINAL[stream.status]} (${stream.status})`;
      if (stream.ok) {
        tried = 0;
        await opened?.(headers);
        for await (const { id, event, data } of frames(stream.body)) {
          last = id ?? last;
          if (data) heard(JSON.parse(data), event);
        }
      }
    } catch (error) {
      if (error.final) return error.message;
    }
    if (!signal.aborted) await pause(PAUSES[Math.min(tried, PAUSES.length - 1)], signal);
  }
  return "";
}

async function* frames(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const silent = setTimeout(() => reader.cancel(), SILENCE);
      const { value, done } = await reader.read();
      clearTimeout(silent);
      if (done) return;
      const whole = (text + value).split("\n\n");
      text = whole.pop();
      for (const frame of whole) yield Object.fromEntries(frame.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
