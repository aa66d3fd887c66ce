// A client of esl_apps in Node.js: place a call, follow it, verify its webhook, read its record, fetch its recording.
// Needs Node.js 18 or later and no packages. README.rst lists the environment variables.

import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const { API_URL, API_TOKEN, WEBHOOK_LISTEN, WEBHOOK_SECRET, REDIS_URL, RECORDS, RECORDING } = process.env;
const { AGENT, CALLEE, OUTBOUND_ID } = process.env;
const CDRS = "enigma:notifications:cdr";
// Milliseconds in which a call is placed or given up. The key of a request whose node has died is free again after 60 s.
const PATIENCE = 90_000;

const ask = (path, options = {}) =>
  fetch(API_URL + path, { ...options, headers: { Authorization: `Bearer ${API_TOKEN}`, ...options.headers } });

// Place a call ---------------------------------------------------------------------------------------------

// Places exactly one call. The key makes it safe to ask again.
async function place(order) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": randomUUID() };
  const deadline = Date.now() + PATIENCE;
  let tries = 0;
  while (tries < 5 && Date.now() < deadline) {
    let answer;
    let text;
    try {
      const signal = AbortSignal.timeout(30_000);
      answer = await ask("/click2dial/calls", { method: "POST", headers, body: JSON.stringify(order), signal });
      text = await answer.text();
    } catch {
      // No answer: the call may or may not have been placed. The same key finds out.
      await sleep(1000 * 2 ** tries++);
      continue;
    }
    if (answer.ok) return JSON.parse(text).call_ref;
    const runs = stillRuns(text);
    // The body says which field is wrong, and what was expected.
    if (![429, 503].includes(answer.status) && !runs) throw new Error(`refused: ${text}`);
    if (!runs) tries++;
    await sleep(1000 * Number(answer.headers.get("Retry-After") ?? 1));
  }
  throw new Error("no answer; the call may have been placed");
}

// Whether the first request with this key, whose answer was lost, hasn't placed its call yet.
function stillRuns(refusal) {
  try {
    return JSON.parse(refusal).errors.some(({ code }) => code === "in_progress");
  } catch {
    return false;
  }
}

// Follow it ------------------------------------------------------------------------------------------------

// Yields "connected", then each event once and in order, over as many connections as it takes.
async function* events(filters) {
  const path = `/click2dial/events?${new URLSearchParams(filters)}`;
  let last = "";
  for (;;) {
    const connection = new AbortController();
    // Heartbeats come every 15 s: after 40 s of silence the connection is dead.
    const inTime = (promise) => {
      const silence = setTimeout(() => connection.abort(), 40_000);
      return promise.finally(() => clearTimeout(silence));
    };
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const answer = await inTime(ask(path, { headers, signal: connection.signal }));
      // 503: the node stops, or Redis is away.
      if (!answer.ok && ![429, 503].includes(answer.status)) throw new Error(`refused: ${await answer.text()}`);
      if (!answer.ok) throw new Error("not now");
      yield { event: "connected" };
      let text = "";
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await inTime(reader.read());
        if (done) break;
        text += value;
        const frames = text.split("\n\n");
        text = frames.pop();
        for (const frame of frames) {
          const fields = Object.fromEntries(frame.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
          last = fields.id ?? last;
          if (fields.data) yield { event: fields.event, data: JSON.parse(fields.data) };
        }
      }
    } catch (error) {
      if (String(error.message).startsWith("refused")) throw error;
    } finally {
      connection.abort();
    }
    await sleep(1000);
  }
}

// Receive webhooks -----------------------------------------------------------------------------------------

// Whether a webhook is ours and fresh (https://www.standardwebhooks.com). `body`: the bytes as they came.
function isGenuine(headers, body, secret) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures = "" } = headers;
  if (!/^\d+$/.test(timestamp ?? "") || Math.abs(Date.now() / 1000 - timestamp) > 300) return false;
  const key = Buffer.from(secret.replace("whsec_", ""), "base64");
  const digest = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
  const expected = Buffer.from(`v1,${digest}`);
  // One for each secret, while the secret is being changed.
  return signatures.split(" ").map((text) => Buffer.from(text)).some(
    (given) => given.length === expected.length && timingSafeEqual(given, expected),
  );
}

// Serves webhooks; calls `take` with each notification once.
async function receive(listen, secret, take) {
  const seen = new Set();
  const server = createServer(async (request, response) => {
    const parts = [];
    try {
      for await (const part of request) parts.push(part);
    } catch {
      return; // it was cut off, and comes again
    }
    const body = Buffer.concat(parts);
    if (!isGenuine(request.headers, body, secret)) {
      response.writeHead(401).end();
      return;
    }
    const id = request.headers["webhook-id"];
    if (!seen.has(id)) {
      // It may come again, under the same id: store the id with what you make of it.
      seen.add(id);
      take(JSON.parse(body));
    }
    response.writeHead(204).end();
  });
  const [host, port] = listen.split(":");
  server.listen(Number(port), host);
  await once(server, "listening");
  return server;
}

// Read records from Redis ----------------------------------------------------------------------------------

// As little of a Redis client as this needs. A real program uses the package `redis`.
class Redis {
  constructor(url) {
    this.url = new URL(url);
    this.text = Buffer.alloc(0);
  }

  async open() {
    this.socket = connect(Number(this.url.port || 6379), this.url.hostname);
    await once(this.socket, "connect");
    this.parts = this.socket[Symbol.asyncIterator]();
    if (this.url.password) await this.ask("AUTH", decodeURIComponent(this.url.password));
    await this.ask("SELECT", this.url.pathname.slice(1) || "0");
    return this;
  }

  async ask(...words) {
    const packed = words.map((word) => `$${Buffer.byteLength(String(word))}\r\n${word}\r\n`);
    this.socket.write(`*${words.length}\r\n${packed.join("")}`);
    return this.answer();
  }

  async answer() {
    const line = (await this.take(await this.lineLength())).toString().slice(0, -2);
    const [kind, rest] = [line[0], line.slice(1)];
    if (kind === "-") throw new Error(rest);
    if (kind === "+") return rest;
    if (kind === ":") return Number(rest);
    if (rest === "-1") return null;
    if (kind === "$") return (await this.take(Number(rest) + 2)).toString().slice(0, -2);
    const items = [];
    for (let i = 0; i < Number(rest); i++) items.push(await this.answer());
    return items;
  }

  async lineLength() {
    while (!this.text.includes("\r\n")) await this.more();
    return this.text.indexOf("\r\n") + 2;
  }

  async take(length) {
    while (this.text.length < length) await this.more();
    const taken = this.text.subarray(0, length);
    this.text = this.text.subarray(length);
    return taken;
  }

  async more() {
    const { value, done } = await this.parts.next();
    if (done) throw new Error("Redis closed the connection");
    this.text = Buffer.concat([this.text, value]);
  }
}

// Pops records until a call's. A popped record is gone: a real program keeps each.
async function fromList(redis, ref) {
  for (;;) {
    const popped = await redis.ask("BRPOP", CDRS, 30);
    if (!popped) throw new Error("no record");
    const record = JSON.parse(popped[1]).payload;
    if (record.call_ref === ref) return record;
  }
}

// Reads records of a stream in a consumer group until a call's.
async function fromStream(redis, ref) {
  const [stream, group] = [`${CDRS}:stream`, "billing"];
  await redis.ask("XGROUP", "CREATE", stream, group, "0", "MKSTREAM").catch((error) => {
    if (!error.message.startsWith("BUSYGROUP")) throw error;
  });
  for (;;) {
    const found = await redis.ask(
      "XREADGROUP", "GROUP", group, "worker-1", "COUNT", 10, "BLOCK", 30000, "STREAMS", stream, ">",
    );
    if (!found) throw new Error("no record");
    for (const [id, fields] of found[0][1]) {
      const record = JSON.parse(fields[fields.indexOf("json") + 1]).payload;
      // Acknowledge it once it is stored. With "0" for ">", what is not acknowledged comes again.
      await redis.ask("XACK", stream, group, id);
      if (record.call_ref === ref) return record;
    }
  }
}

// All of it ------------------------------------------------------------------------------------------------

const notifications = new Map();
await receive(WEBHOOK_LISTEN, WEBHOOK_SECRET, (body) => notifications.set(body.payload.call_ref, body));

const contact_ref = `example-${randomUUID()}`;
let ref;
let ended;
for await (const { event, data } of events({ contact_ref })) {
  // Placed once the events are connected, so that nothing is missed.
  if (event === "connected" && !ref) {
    ref = await place({ agent: AGENT, callee: CALLEE, outbound_id: OUTBOUND_ID, contact_ref });
    console.log("placed", ref);
  } else if (event === "call") {
    console.log("event", data.state);
  } else if (event === "record") {
    ended = data;
    break;
  }
}
console.log("ended", ended.end_reason);

while (!notifications.has(ref)) await sleep(20);
const { type, payload } = notifications.get(ref);
console.log("webhook", type, payload.end_reason);

const redis = await new Redis(REDIS_URL).open();
const record = await (RECORDS === "stream" ? fromStream : fromList)(redis, ref);
console.log("record", record.end_reason, "seq", record.seq);

if (record.recording_url) {
  const answer = await ask(`/click2dial/recordings/${record.recording_url}`);
  if (!answer.ok) throw new Error(await answer.text());
  const audio = Buffer.from(await answer.arrayBuffer());
  await writeFile(RECORDING, audio);
  console.log("recording", audio.length, "bytes");
}
process.exit(0);
