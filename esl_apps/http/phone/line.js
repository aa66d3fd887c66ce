// One registration and one call at a time, without a word about the page. phone.js shows it.

import { Inviter, Registerer, RegistererState, SessionState, UserAgent } from "./sip.js";

// Milliseconds. A page on a LAN has its addresses at once; without a limit, a dead STUN server holds each call up.
const ICE_WAIT = 1000;
const RECONNECT = [1000, 2000, 5000, 10000, 20000];
// How often to register. Sleep, a VPN or another Wi-Fi may end a WebSocket silently, and only an answer shows that it is alive.
// nginx closes one that is silent for a minute.
const REFRESH = 50000;
const REASONS = {
  403: "not allowed", 404: "no such number", 408: "no answer", 480: "no answer, or not registered", 484: "number incomplete",
  486: "busy", 487: "cancelled", 488: "no audio possible between the two", 500: "the switch failed", 503: "not available now",
  600: "busy", 603: "refused",
};

export function reason(status, phrase) {
  return `${REASONS[status] ?? phrase ?? "failed"} (${status})`;
}

// Whether an INVITE asks the phone to answer by itself. There is no standard; these are the forms that phones know.
export function asksForAnswer(message) {
  return message.getHeaders("Call-Info").some((text) => /answer-after\s*=\s*0\b/i.test(text))
    || message.getHeaders("Alert-Info").some((text) => /auto[-_ ]?answer/i.test(text));
}

export class Line {
  // `on`: { registration(state, text), incoming(call), ... } that the page brings.
  constructor(on) {
    this.on = on;
    this.call = null;
    this.microphone = "";
    this.agent = null;
    this.registerer = null;
    this.next = null;
  }

  get registered() { return this.registerer?.state === RegistererState.Registered; }

  get extension() { return this.agent?.configuration.uri.user ?? ""; }

  async register({ server, domain, extension, password }) {
    await this.unregister();
    const uri = UserAgent.makeURI(`sip:${extension}@${domain}`);
    if (!uri) throw new Error("this extension and domain make no SIP address");
    this.on.registration("wait", "Connecting…");
    this.domain = domain;
    const agent = this.agent = new UserAgent({
      uri,
      authorizationUsername: extension,
      authorizationPassword: password,
      transportOptions: { server, connectionTimeout: 10 },
      sessionDescriptionHandlerFactoryOptions: { iceGatheringTimeout: ICE_WAIT },
      logBuiltinEnabled: false,
      delegate: {
        onInvite: (invitation) => this.#invited(invitation),
        onDisconnect: (error) => { if (error && this.agent === agent) this.#reconnect(agent, 0); },
      },
    });
    try {
      await agent.start();
    } catch (error) {
      this.agent = null;
      throw new Error(`no connection to ${server}`, { cause: error });
    }
    this.registerer = new Registerer(agent, { expires: 300 });
    this.#send(agent, 0);
  }

  #send(agent, tried) {
    const { ws } = agent.transport;
    // Without an answer that SIP.js understands.
    this.#later(agent, REFRESH, () => this.#send(agent, tried));
    this.next = null;
    const again = (text) => this.#again(agent, tried, text, () => this.#send(agent, tried + 1));
    const current = (step) => (response) => { if (this.agent === agent && agent.transport.ws === ws) step(response); };
    this.registerer.register({
      requestDelegate: {
        onAccept: current(() => {
          this.on.registration("on", `Registered as ${agent.configuration.uri.user}`);
          this.#later(agent, REFRESH, () => this.#send(agent, 0));
        }),
        onReject: current(({ message: { statusCode, reasonPhrase } }) => {
          const wrong = statusCode === 401 || statusCode === 403;
          if (statusCode === 408) this.#reconnect(agent, tried);
          // A switch that starts answers 503 for a while.
          else if (statusCode >= 500) again("The switch is not ready, trying again…");
          else {
            clearTimeout(this.timer);
            this.on.registration("bad", wrong ? "Wrong extension or password" : `Refused: ${reason(statusCode, reasonPhrase)}`);
          }
        }),
      },
    }).catch(() => again("Trying again…")); // one is on its way already
  }

  // Drops the WebSocket, if it isn't gone, and opens another. A call goes on.
  #reconnect(agent, tried) {
    agent.transport.disconnect().catch(() => {}); // a dead one is replaced before it has closed
    this.#again(agent, tried, "Connection lost, trying again…", async () => {
      try {
        await agent.reconnect();
      } catch {
        if (this.agent === agent) this.#reconnect(agent, tried + 1);
        return;
      }
      if (this.agent === agent) this.#send(agent, tried + 1);
    });
  }

  #again(agent, tried, text, step) {
    this.on.registration("wait", text);
    this.#later(agent, RECONNECT[Math.min(tried, RECONNECT.length - 1)], step);
  }

  #later(agent, milliseconds, step) {
    clearTimeout(this.timer);
    this.next = () => {
      clearTimeout(this.timer);
      this.next = null;
      if (this.agent === agent) step();
    };
    this.timer = setTimeout(this.next, milliseconds);
  }

  // Takes the next step at once: the network is back, or the page is seen again.
  wake() { this.next?.(); }

  async unregister() {
    const { agent, registerer } = this;
    this.agent = this.registerer = null;
    if (!agent) return;
    this.call?.end();
    await registerer?.unregister().catch(() => {});
    await agent.stop().catch(() => {});
    this.on.registration("off", "Not registered");
  }

  // Dials a callee through the node; `fields` as in POST /click2dial/calls. Its refusal lists the errors of fields.
  dial(fields) {
    const uri = UserAgent.makeURI(`sip:${encodeURIComponent(fields.callee)}@${this.domain}`);
    const extraHeaders = [`X-Teleforge-Outbound-ID: ${line(fields.outbound_id)}`];
    if (fields.contact_ref) extraHeaders.push(`X-Teleforge-Contact-Ref: ${line(fields.contact_ref)}`);
    const inviter = new Inviter(this.agent, uri, { extraHeaders, earlyMedia: true });
    const call = this.#follow(inviter, fields.callee, false);
    inviter.invite({
      sessionDescriptionHandlerOptions: call.media(),
      requestDelegate: {
        onProgress: ({ message }) => call.changed(message.statusCode === 180 || message.statusCode === 183 ? "ringing" : "calling"),
        onReject: ({ message }) => {
          call.errors = message.getHeaders("X-Teleforge-Error").map(fieldError);
          call.refusal = reason(message.statusCode, message.reasonPhrase);
        },
      },
    }).catch((error) => call.failed(error));
    call.changed("calling");
    return call;
  }

  #invited(invitation) {
    if (this.call) {
      invitation.reject({ statusCode: 486 });
      return;
    }
    const { displayName, uri: { user } } = invitation.remoteIdentity;
    // Without a name, a switch shows the number twice.
    const party = [...new Set([displayName, user])].filter(Boolean).join(", ") || "unknown";
    const call = this.#follow(invitation, party, true);
    call.automatic = asksForAnswer(invitation.request);
    this.on.incoming(call);
    call.changed("incoming");
  }

  #follow(session, party, incoming) {
    const call = this.call = new Call(session, party, incoming, () => this.microphone, (now) => {
      if (now === "ended" && this.call === call) this.call = null;
      this.on.call(call, now);
    });
    return call;
  }
}

export class Call {
  // `chosen()` is the microphone to use; `microphone` is the one in use.
  constructor(session, party, incoming, chosen, on) {
    Object.assign(this, { session, party, incoming, chosen, on });
    this.microphone = "";
    this.state = "";
    this.since = null;
    this.errors = [];
    this.refusal = "";
    this.muted = this.held = this.automatic = this.left = false;
    session.stateChange.addListener((state) => {
      if (state === SessionState.Established) {
        this.since = Date.now();
        this.#watch();
        this.connection.addEventListener("connectionstatechange", () => this.#connectionChanged());
        this.changed("talking");
      }
      // SIP.js tells the reason of a refusal only after this.
      if (state === SessionState.Terminated) queueMicrotask(() => this.changed("ended"));
    });
  }

  changed(state) {
    if (this.state === state || this.state === "ended" || (this.since && ["calling", "ringing"].includes(state))) return;
    this.state = state;
    this.on(state);
  }

  // SIP.js ends a session before it says what failed, so the page is told again.
  failed(error) {
    if (this.left) return; // this phone hung up
    this.refusal = said(error);
    this.state = "ended";
    this.on("ended");
  }

  media() {
    this.microphone = this.chosen();
    return { constraints: { audio: this.microphone ? { deviceId: { exact: this.microphone } } : true, video: false } };
  }

  // The network changed, or the other end hung up while the phone had no WebSocket.
  #connectionChanged() {
    if (this.connection?.connectionState !== "failed") return;
    this.refusal = "the audio was lost";
    this.end();
  }

  get connection() { return this.session.sessionDescriptionHandler?.peerConnection; }

  get stream() { return this.session.sessionDescriptionHandler?.remoteMediaStream ?? null; }

  async answer() {
    this.changed("answering");
    try {
      await this.session.accept({ sessionDescriptionHandlerOptions: this.media() });
    } catch (error) {
      await this.session.reject({ statusCode: 480 }).catch(() => {});
      this.failed(error);
    }
  }

  end() {
    const { state } = this.session;
    this.left = true;
    if (state === SessionState.Established) return this.session.bye();
    if (state === SessionState.Terminated || state === SessionState.Terminating) return undefined;
    return this.incoming ? this.session.reject({ statusCode: 486 }) : this.session.cancel();
  }

  mute(muted) {
    this.muted = muted;
    this.#sendVoice();
  }

  async hold(held) {
    const { session } = this;
    session.sessionDescriptionHandlerOptionsReInvite = { ...session.sessionDescriptionHandlerOptionsReInvite, hold: held };
    await new Promise((resolve, reject) => {
      session.invite({
        requestDelegate: { onAccept: resolve, onReject: ({ message }) => reject(new Error(reason(message.statusCode, message.reasonPhrase))) },
      }).catch(reject);
    });
    this.held = held;
    this.#sendVoice();
  }

  #sendVoice() {
    for (const sender of this.connection?.getSenders() ?? []) if (sender.track) sender.track.enabled = !this.muted && !this.held;
  }

  get #sender() { return this.connection?.getSenders().find(({ track }) => track?.kind === "audio"); }

  // Takes the chosen microphone, if the call has another one or one that was unplugged.
  async useMicrophone() {
    const sender = this.#sender;
    if (!sender || (this.microphone === this.chosen() && sender.track.readyState === "live")) return;
    const before = this.microphone;
    try {
      const [track] = (await navigator.mediaDevices.getUserMedia(this.media().constraints)).getAudioTracks();
      const old = sender.track;
      if (this.state === "ended") track.stop();
      else await sender.replaceTrack(track);
      old.stop();
    } catch (error) {
      this.microphone = before;
      throw new Error(said(error), { cause: error });
    }
    this.#watch();
    this.#sendVoice();
  }

  // `unplugged`, which the page brings, is called when the microphone is.
  #watch() {
    const sender = this.#sender;
    if (sender) sender.track.onended = () => this.unplugged?.();
  }

  press(key) {
    const sender = this.connection?.getSenders().map(({ dtmf }) => dtmf).find((dtmf) => dtmf?.canInsertDTMF);
    // Behind the keys that are still to be sent: insertDTMF replaces them, and a person types faster than it sends.
    if (sender) sender.insertDTMF(sender.toneBuffer + key, 120, 70);
    else {
      const content = `Signal=${key}\r\nDuration=120\r\n`;
      this.session.info({ requestOptions: { body: { contentDisposition: "render", contentType: "application/dtmf-relay", content } } });
    }
  }
}

function said(error) {
  return error.name === "NotAllowedError" || error.name === "NotFoundError"
    ? "the page may not use a microphone, or there is none" : error.message || error.name;
}

// A header's value is one line: what a person pastes must not begin another header.
function line(text) { return text.replace(/[\r\n]+/g, " ").trim(); }

function fieldError(text) {
  const [, field, message] = /^([a-z_]+): (.*)$/s.exec(text) ?? [null, "", text];
  return { field, message };
}
