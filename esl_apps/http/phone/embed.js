// Turns the tel: links of a page into calls:
//
//   <script src="https://phone.example.com/phone/embed.js" data-agent="1000" data-outbound-id="27115550000"
//           data-token-url="/my-server/agent-token"></script>
//
// data-mode         post: the agent's phone rings, then the callee (default). phone: through the page at /phone/
// data-agent        the agent whose phone rings (post)
// data-token-url    an address of your own server that answers {"token", "expires_at"} (post; phone: to show how calls go on)
// data-token        a token, in place of data-token-url
// data-outbound-id  the number that the callee sees; a link's own data-outbound-id comes first
// data-contact-ref  your reference, normally on each link
// data-plus         what replaces a + in front of a number, if anything
//
// Each link fires `esl-apps-call`, whose detail has call_ref and state, or errors. With data-mode post, and a token that
// may read, it then fires `esl-apps-state` for each state of the call; the last one has end_reason.

(() => {
  "use strict";
  const script = document.currentScript;
  const settings = script.dataset;
  const phone = new URL(".", script.src);
  const calls = new URL("../click2dial/calls", phone);
  const events = new URL("../click2dial/events", phone);
  const mode = settings.mode ?? "post";
  let token = settings.token ? { token: settings.token, expires_at: Infinity } : null;
  let line = null;

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='tel:' i]");
    if (!link || event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (link.getAttribute("aria-busy") === "true") return;
    const fields = { callee: number(link.href), outbound_id: link.dataset.outboundId ?? settings.outboundId };
    const reference = link.dataset.contactRef ?? settings.contactRef;
    if (reference) fields.contact_ref = reference;
    link.setAttribute("aria-busy", "true");
    (mode === "phone" ? throughPhone(fields) : post(fields))
      .then((call) => {
        say(call.state === "waiting" || call.state === "busy" ? `${fields.callee}: see the phone's window.` : `Calling ${fields.callee}…`);
        if (call.call_ref) follow(call, fields.callee, link).catch(() => {}); // the call goes on without
        return call;
      }, (error) => {
        say(`${fields.callee} was not called: ${error.message}`);
        return { errors: error.errors ?? [{ field: "", code: "failed", message: error.message }] };
      })
      .then((detail) => {
        link.removeAttribute("aria-busy");
        link.dispatchEvent(new CustomEvent("esl-apps-call", { bubbles: true, detail }));
      });
  });

  // The node reads what follows: separators, parameters (;ext=12) and a +.
  function number(href) {
    let text = href.slice("tel:".length);
    try {
      text = decodeURIComponent(text);
    } catch {
      // A % without a code: the node says what is wrong with the number.
    }
    return text.replace(/^\+/, settings.plus ?? "+");
  }

  async function post(fields) {
    const answer = await fetch(calls, {
      method: "POST",
      credentials: "omit",
      headers: {
        "Authorization": `Bearer ${await agentToken()}`,
        "Content-Type": "application/json",
        "Idempotency-Key": [...crypto.getRandomValues(new Uint32Array(4))].join("-"),
      },
      body: JSON.stringify({ agent: settings.agent, ...fields }),
    });
    const body = await answer.json();
    if (answer.ok) return body;
    if (answer.status === 401) token = settings.token ? token : null;
    const messages = body.errors.map(({ field, message }) => (field ? `${field}: ${message}` : message));
    throw Object.assign(new Error(messages.join("; ")), { errors: body.errors });
  }

  // What the agent reads of each state.
  const STATES = { agent_ringing: "your phone rings", callee_ringing: "rings", bridged: "connected" };

  // Shows the states of a call until its end.
  async function follow(call, callee, link) {
    const stream = await import(new URL("events.js", phone));
    const ended = new AbortController();
    let shown = call.state;
    const show = (data) => {
      if (!stream.isLater(data.state, shown)) return;
      shown = data.state;
      const text = shown === "ended" ? data.end_reason.replaceAll("_", " ") : STATES[shown];
      if (text) say(`${callee}: ${text}`);
      link.dispatchEvent(new CustomEvent("esl-apps-state", { bubbles: true, detail: data }));
      if (shown === "ended") ended.abort();
    };
    await stream.follow({
      address: `${events}?${new URLSearchParams({ contact_ref: call.contact_ref })}`,
      token: agentToken,
      signal: ended.signal,
      // States that were entered before the stream began, or in a gap of it.
      opened: async (headers) => {
        const now = await (await fetch(`${calls}/${call.call_ref}`, { credentials: "omit", headers })).json();
        show({ ...now, ...now.record, state: now.state });
      },
      heard: (data, kind) => { if (kind === "call" && data.call_ref === call.call_ref) show(data); },
    });
  }

  async function agentToken() {
    if (!token || token.expires_at * 1000 < Date.now() + 30000) {
      const answer = await fetch(settings.tokenUrl, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw Object.assign(new Error(`no token (${answer.status})`), { final: true });
      token = await answer.json();
    }
    return token.token;
  }

  // The phone's window is opened once. It dials only for pages that `allow_origins` lists. With a token, it shows how the
  // call goes on beyond its own leg.
  function throughPhone(fields) {
    if (!line || line.closed) line = phoneWindow();
    if (!line) return Promise.reject(new Error("the browser has blocked the phone's window"));
    line.focus();
    const id = [...crypto.getRandomValues(new Uint32Array(4))].join("-");
    return new Promise((resolve, reject) => {
      let left = 60;
      const timer = setInterval(() => {
        if (left-- === 0) finish(() => reject(new Error("the phone's window does not answer; close it and try again")));
        else line.postMessage({ type: "esl-apps-dial", id, fields, tokens: hasToken() }, phone.origin);
      }, 250);
      const heard = ({ source, origin, data }) => {
        if (source === line && origin === phone.origin && data?.type === "esl-apps-dialled" && data.id === id) {
          finish(() => resolve({ state: data.state }));
        }
      };
      const finish = (settle) => { clearInterval(timer); window.removeEventListener("message", heard); settle(); };
      window.addEventListener("message", heard);
    });
  }

  // A page before this one may have opened the window. To load the phone there again would end its call.
  function phoneWindow() {
    const found = window.open("", "esl_apps_phone", "popup,width=420,height=760");
    try {
      if (found?.location.href === "about:blank") found.location = phone;
    } catch {
      // Another origin's page, which is the phone's.
    }
    return found;
  }

  const hasToken = () => Boolean(settings.token || settings.tokenUrl);

  // The phone asks for a token when it needs one, also a page that was loaded after the one that opened it.
  window.addEventListener("message", async ({ source, origin, data }) => {
    if (mode !== "phone" || origin !== phone.origin || data?.type !== "esl-apps-token-wanted" || !hasToken()) return;
    const given = await agentToken().catch(() => "");
    source.postMessage({ type: "esl-apps-token", token: given }, phone.origin);
  });

  // Shown and read out for some seconds.
  const shown = document.createElement("div");
  shown.setAttribute("role", "status");
  Object.assign(shown.style, {
    position: "fixed", left: "1rem", bottom: "1rem", maxWidth: "calc(100vw - 2rem)", padding: "0", zIndex: "2147483647",
    background: "#1b1f24", color: "#ffffff", font: "15px/1.4 system-ui, sans-serif", borderRadius: ".4rem",
  });
  let hiding = 0;
  function say(text) {
    if (!shown.isConnected) document.body.append(shown);
    clearTimeout(hiding);
    shown.style.padding = ".6rem .9rem";
    shown.textContent = text;
    hiding = setTimeout(() => { shown.textContent = ""; shown.style.padding = "0"; }, 8000);
  }
})();
