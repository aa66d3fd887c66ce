// The page: forms, buttons and what they show. line.js speaks SIP, and follow.js tells what SIP doesn't.

import { Follower } from "./follow.js";
import { Line } from "./line.js";

const $ = (id) => document.getElementById(id);
const STORED = ["extension", "server", "domain", "outbound_id"]; // never the password
const STATES = {
  incoming: "Incoming call", answering: "Answering…", calling: "Calling…", ringing: "Ringing…", talking: "Connected",
};
// What the node says of the whole call; SIP tells of this phone's leg alone.
const PROGRESS = {
  agent_ringing: "For a call to %", agent_answered: "% is called", callee_ringing: "% is ringing", bridged: "Connected with %",
};
const remote = $("remote");
let ring = null;
let ticking = 0;

const line = new Line({
  registration(state, text) {
    const pill = $("registration");
    if (pill.dataset.state === state && pill.textContent === text) return; // it registers again and again
    pill.dataset.state = state;
    pill.textContent = text;
    $("unregister").disabled = state === "off";
    if (state === "on") follower.begin(line.extension);
    if (state === "off") follower.end();
    if (state === "on") $("account-panel").open = false;
    if (state === "bad") $("account-panel").open = true;
    enable();
  },
  incoming(call) {
    if (!(call.automatic && $("automatic").checked)) ring = startRing();
    else setTimeout(() => call.answer());
  },
  call: show,
});

const follower = new Follower({ progress, followed });

// What the page shows --------------------------------------------------------------------------------------

function enable() {
  $("place").disabled = !line.registered || line.call !== null;
}

function show(call, state) {
  $("call").hidden = state === "ended";
  $("dial").hidden = state !== "ended";
  if (state === "incoming") showErrors([]);
  $("party").textContent = call.party;
  $("state").textContent = call.held ? "On hold" : STATES[state] ?? "";
  $("ringing").hidden = state !== "incoming";
  $("talking").hidden = state === "incoming" || state === "ended";
  for (const id of ["mute", "hold", "keys"]) $(id).disabled = state !== "talking";
  document.title = state === "incoming" ? `Call from ${call.party}` : "Phone";
  enable();
  if (state !== "incoming") ring = ring?.();
  if (state === "incoming") $("answer").focus();
  if (["ringing", "talking"].includes(state)) remote.srcObject = call.stream;
  if (state === "talking") begun(call);
  if (state === "ended") ended(call);
}

function begun(call) {
  $("hangup").focus();
  clearInterval(ticking);
  const tick = () => { $("duration").textContent = duration(Date.now() - call.since); };
  tick();
  ticking = setInterval(tick, 1000);
  call.unplugged = listDevices;
  listDevices(); // its labels are known now
}

function ended(call) {
  clearInterval(ticking);
  remote.srcObject = null;
  $("duration").textContent = $("sent").textContent = "";
  $("sent").hidden = true;
  progress(null);
  toggle("mute", "aria-pressed", false);
  toggle("hold", "aria-pressed", false);
  toggle("keys", "aria-expanded", false);
  $("keypad").hidden = true;
  showErrors(call.errors);
  const others = call.errors.filter(({ field }) => !$(`${field}-error`)).map(({ field, message }) => `${field}: ${message}`);
  if (others.length) problem(others.join("; "));
  else if (call.refusal && !call.errors.length) problem(`Call ${call.incoming ? "from" : "to"} ${call.party}: ${call.refusal}`);
  if (!call.incoming) (document.querySelector("#dial [aria-invalid=true]") ?? $("callee")).focus();
}

// What events tell of a call of this extension: who it is for, how far it is, and why it ended. null: no call.
function progress(call) {
  const pairs = call === null || call.state === "ended" ? [] : Object.entries({ ...(call.contact_ref && { Reference: call.contact_ref }), ...call.metadata });
  $("about").replaceChildren(...pairs.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  $("about").hidden = !pairs.length;
  const text = call === null ? "" : PROGRESS[call.state]?.replace("%", () => call.callee ?? "the other party") ?? "";
  $("progress").textContent = text;
  $("progress").hidden = !text;
  if (call?.state === "ended" && call.end_reason) {
    $("last").textContent = `Last call${call.callee ? ` to ${call.callee}` : ""}: ${call.end_reason.replaceAll("_", " ")}`;
    $("last").hidden = false;
  }
}

function followed(why) {
  $("events").textContent = why && `Live updates are off: ${why}. The phone works without them.`;
  $("events").hidden = !why;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function showErrors(errors) {
  for (const input of document.querySelectorAll("#dial input")) {
    const text = errors.filter(({ field }) => field === input.name).map(({ message }) => message).join("; ");
    $(`${input.name}-error`).textContent = text && text[0].toUpperCase() + text.slice(1);
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  }
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  const hours = seconds >= 3600 ? `${Math.floor(seconds / 3600)}:` : "";
  return `${hours}${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

function toggle(id, attribute, on) {
  $(id).setAttribute(attribute, String(on));
}

// What a person does ---------------------------------------------------------------------------------------

$("account").addEventListener("submit", async (event) => {
  event.preventDefault();
  problem("");
  const fields = Object.fromEntries([...new FormData(event.target)].map(([name, text]) => [name, text.trim()]));
  try {
    await line.register({ ...fields, password: $("password").value });
    for (const name of STORED) if (fields[name] !== undefined) localStorage.setItem(name, fields[name]);
  } catch (error) {
    line.on.registration("bad", "Not registered");
    problem(`Can't register: ${error.message}.`);
  }
});

$("unregister").addEventListener("click", () => line.unregister());

$("dial").addEventListener("submit", (event) => {
  event.preventDefault();
  place(Object.fromEntries([...new FormData(event.target)].map(([name, text]) => [name, text.trim()])));
});

function place(fields) {
  if (!line.registered || line.call) return false;
  problem("");
  $("last").hidden = true;
  const missing = ["callee", "outbound_id"].filter((field) => !fields[field]);
  showErrors(missing.map((field) => ({ field, message: "missing" })));
  if (missing.length) {
    $(missing[0]).focus();
    return false;
  }
  localStorage.setItem("outbound_id", own ?? fields.outbound_id);
  line.dial(fields);
  return true;
}

$("answer").addEventListener("click", () => line.call?.answer());
$("refuse").addEventListener("click", () => line.call?.end());
$("hangup").addEventListener("click", () => line.call?.end());

$("mute").addEventListener("click", () => {
  line.call.mute(!line.call.muted);
  toggle("mute", "aria-pressed", line.call.muted);
});

$("hold").addEventListener("click", async () => {
  const { call } = line;
  $("hold").disabled = true;
  try {
    await call.hold(!call.held);
  } catch (error) {
    problem(`Hold: ${error.message}`);
  }
  if (line.call !== call) return;
  $("hold").disabled = false;
  toggle("hold", "aria-pressed", call.held);
  $("state").textContent = call.held ? "On hold" : STATES[call.state];
});

$("keys").addEventListener("click", () => {
  $("keypad").hidden = !$("keypad").hidden;
  toggle("keys", "aria-expanded", !$("keypad").hidden);
});

const NAMES = { "*": "star", "#": "hash" };
for (const key of "123456789*0#") {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = key;
  if (NAMES[key]) button.setAttribute("aria-label", NAMES[key]);
  button.addEventListener("click", () => press(key));
  $("keypad").append(button);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select")) return;
  if (line.call?.state === "talking" && !$("keypad").hidden && /^[0-9*#]$/.test(event.key)) press(event.key);
});

function press(key) {
  line.call.press(key);
  $("sent").hidden = false;
  $("sent").textContent += key;
}

// Sound ----------------------------------------------------------------------------------------------------

async function listDevices() {
  const devices = await navigator.mediaDevices?.enumerateDevices() ?? [];
  for (const [id, kind] of [["microphone", "audioinput"], ["speaker", "audiooutput"]]) {
    const chosen = localStorage.getItem(id) ?? "";
    const found = devices.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== "default");
    const options = found.map((device, i) => new Option(device.label || `${kind === "audioinput" ? "Microphone" : "Speaker"} ${i + 1}`, device.deviceId));
    $(id).replaceChildren(new Option("Default", ""), ...options);
    $(id).value = found.some((device) => device.deviceId === chosen) ? chosen : "";
  }
  await Promise.all(Object.keys(DEVICES).map(use));
}

const DEVICES = {
  microphone: async (id) => { line.microphone = id; await line.call?.useMicrophone(); },
  speaker: async (id) => { await remote.setSinkId?.(id); },
};

// Puts the device that is shown in force. Returns whether it could.
async function use(kind) {
  try {
    await DEVICES[kind]($(kind).value);
    return true;
  } catch (error) {
    problem(`${$(kind).labels[0].textContent}: ${error.message}`);
    return false;
  }
}

for (const kind of Object.keys(DEVICES)) {
  $(kind).addEventListener("change", async () => {
    const chosen = $(kind).value;
    if (await use(kind)) localStorage.setItem(kind, chosen);
    else listDevices();
  });
}

$("automatic").checked = localStorage.getItem("automatic") !== "off";
$("automatic").addEventListener("change", () => localStorage.setItem("automatic", $("automatic").checked ? "on" : "off"));

// Returns a function that stops it.
function startRing() {
  const context = new AudioContext();
  const volume = new GainNode(context, { gain: 0 });
  for (const frequency of [440, 480]) {
    const tone = new OscillatorNode(context, { frequency });
    tone.connect(volume);
    tone.start();
  }
  volume.connect(context.destination);
  for (let i = 0; i < 40; i++) {
    volume.gain.setValueAtTime(0.1, context.currentTime + 3 * i);
    volume.gain.setValueAtTime(0, context.currentTime + 3 * i + 1);
  }
  return () => { context.close(); return null; };
}

// Pages that embed the phone -------------------------------------------------------------------------------

// A page of another site may only fill in the number, unless `allow_origins` lists it: calls cost money.
async function isAllowed(origin) {
  if (origin === location.origin) return true;
  const answer = await fetch("settings.json");
  return answer.ok && (await answer.json()).allow_origins.includes(origin);
}

const heard = new Set();

window.addEventListener("message", async (event) => {
  const { type, id, fields } = event.data ?? {};
  if (type !== "esl-apps-dial" || typeof id !== "string" || typeof fields?.callee !== "string" || !event.source) return;
  if (heard.has(id)) return; // the page repeats itself until it is answered
  heard.add(id);
  if (!await isAllowed(event.origin)) return;
  if (event.data.tokens === true) follower.askFor(event.source, event.origin);
  fill(fields);
  const state = place(values()) ? "placed" : line.call ? "busy" : "waiting";
  event.source.postMessage({ type: "esl-apps-dialled", id, state }, event.origin);
  if (state === "waiting") problem(line.registered ? "" : `Register to call ${fields.callee}.`);
});

// The person's own number to show, while a page's call is in the form: its reference and its number are for its callee alone.
let own = null;
const FIELDS = ["callee", "outbound_id", "contact_ref"];

function fill(fields) {
  own ??= $("outbound_id").value;
  const { callee = "", outbound_id = own, contact_ref = "" } = fields;
  for (const [name, text] of Object.entries({ callee, outbound_id, contact_ref })) $(name).value = text;
}

$("callee").addEventListener("input", () => {
  if (own === null) return;
  $("outbound_id").value = own;
  $("contact_ref").value = "";
  own = null;
});

$("outbound_id").addEventListener("input", () => {
  if (own !== null) own = $("outbound_id").value;
});

// Links fill the forms in (#callee=…&outbound_id=…&extension=…), also those into a page that is open, but nothing is dialled
// before a person presses Call. And not the server and the domain: anyone can write a link, and the password is for that server.
function followLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  const fields = Object.fromEntries(given);
  if (FIELDS.some((name) => given.has(name))) {
    fill(fields);
    showErrors([]);
    if (!given.has("callee")) own = null; // the rest is for the number that a person enters
  }
  if (given.has("extension")) $("extension").value = fields.extension;
  if (!given.has("token")) return;
  follower.use(fields.token);
  given.delete("token");
  // Out of the address, which people copy.
  history.replaceState(null, "", `${location.pathname}${location.search}#${given}`);
}

window.addEventListener("hashchange", followLink);

function values() {
  return Object.fromEntries(FIELDS.map((name) => [name, $(name).value.trim()]));
}

// The start ------------------------------------------------------------------------------------------------

const secure = location.protocol === "https:";
$("server").value = secure ? `wss://${location.host}/sip` : `ws://${location.hostname}:5066`;
$("domain").value = location.hostname;
for (const name of STORED) $(name).value = localStorage.getItem(name) || $(name).value;
followLink();
$("speaker-field").hidden = !("setSinkId" in remote);
navigator.mediaDevices?.addEventListener("devicechange", listDevices);
listDevices();
window.addEventListener("pagehide", () => line.unregister());
window.addEventListener("online", () => line.wake());
document.addEventListener("visibilitychange", () => { if (!document.hidden) line.wake(); });
if (!navigator.mediaDevices) problem("This page may not use a microphone. Open it over HTTPS, or on http://localhost.");
