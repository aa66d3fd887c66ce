// Follows the calls of the phone's own extension by the node's events, with a token of that agent: from a link
// (#token=…), or from the page that opened the phone (embed.js), which is asked again before it expires.

import { follow, isLater } from "./events.js";

const CALLS = new URL("../click2dial/calls", location.href);
const EVENTS = new URL("../click2dial/events", location.href);
// Milliseconds that a page may take for a token, and before the end of one at which it is asked for the next.
const PATIENCE = 10000;
const EARLY = 30000;

export class Follower {
  // `on`: { progress(call), followed(why) }; `why` is empty while events come.
  constructor(on) {
    this.on = on;
    this.extension = "";
    this.token = null;
    this.giver = null;
    this.following = null;
    this.latest = { call_ref: "", state: "" };
    window.addEventListener("message", ({ source, origin, data }) => {
      if (this.giver && source === this.giver.source && origin === this.giver.origin && data?.type === "esl-apps-token") this.given?.(data.token);
    });
  }

  // A token from a link.
  use(token) {
    this.token = { text: token, until: Infinity };
    this.begin(this.extension);
  }

  // A page that gives tokens.
  askFor(source, origin) {
    this.giver = { source, origin };
    this.begin(this.extension);
  }

  begin(extension) {
    if (this.following && extension === this.extension) return;
    this.end();
    this.extension = extension;
    if (extension && (this.token || this.giver)) this.#run(extension);
  }

  end() {
    this.following?.abort();
    this.following = null;
    this.extension = "";
    this.on.followed("");
  }

  async #run(extension) {
    const following = this.following = new AbortController();
    const why = await follow({
      address: `${EVENTS}?${new URLSearchParams({ agent: extension })}`,
      token: () => this.#token(),
      signal: following.signal,
      opened: async (headers) => {
        this.on.followed("");
        // A call that was there before the stream.
        const answer = await fetch(`${CALLS}?${new URLSearchParams({ agent: extension, limit: 10 })}`, { credentials: "omit", headers });
        const calls = answer.ok ? (await answer.json()).calls : [];
        for (const call of calls.reverse()) if (call.state !== "ended") this.heard(call);
      },
      heard: (data, kind) => { if (kind === "call") this.heard(data); },
    });
    if (this.following !== following) return;
    this.following = null;
    this.on.followed(why);
  }

  // The latest call is the one that is shown: the phone has one at a time.
  heard(call) {
    const { call_ref, state } = this.latest;
    if (call.agent !== this.extension && ["bridged", "ended"].includes(call.state)) {
      // Another agent has answered it.
      if (call.call_ref !== call_ref) return;
      this.latest = { call_ref: "", state: "" };
      this.on.progress(null);
      return;
    }
    if (call.call_ref < call_ref || (call.call_ref === call_ref && !isLater(call.state, state))) return;
    this.latest = call;
    this.on.progress(call);
  }

  async #token() {
    if (this.token && this.token.until > Date.now() + EARLY) return this.token.text;
    if (!this.giver) throw Object.assign(new Error("the token has expired"), { final: true });
    const { source, origin } = this.giver;
    const given = await new Promise((resolve) => {
      this.given = resolve;
      setTimeout(resolve, PATIENCE);
      source.postMessage({ type: "esl-apps-token-wanted" }, origin);
    });
    if (typeof given !== "string" || !given) throw Object.assign(new Error("the page that opened the phone gave no token"), { final: true });
    // The page renews it when it is asked; a token that is refused ends the stream.
    this.token = { text: given, until: Date.now() + EARLY + 60000 };
    return given;
  }
}
