// shimaore's esl (npm), used as in its README: node app.mjs PORT. It takes events as JSON.
import { FreeSwitchServer } from "esl";

const WELCOME = "/usr/share/freeswitch/sounds/en/us/callie/ivr/8000/ivr-welcome.wav";
const LONG = 7200e3;
const silent = { debug() {}, info() {}, error(...what) { console.error(...what); } };
// Only the events that are needed, not all of them, which is its default.
const server = new FreeSwitchServer({ all_events: false, logger: silent });

server.on("connection", async (call, { uuid }) => {
  try {
    let digits = "";
    const entered = new Promise((resolve) => {
      call.on("DTMF", ({ body }) => {
        digits += body["DTMF-Digit"];
        if (digits.length === 4) resolve();
      });
    });
    const ended = call.onceAsync("CHANNEL_HANGUP_COMPLETE", LONG, "end");
    // It exits by itself 4 s after the end unless it is told otherwise.
    call.on("cleanup_linger", () => {});
    call.on("cleanup_disconnect", () => call.end());
    await call.linger();
    await call.event_json("DTMF", "CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE", "CHANNEL_HANGUP_COMPLETE");
    await call.command("answer", "", LONG);
    await call.command("playback", WELCOME, LONG);
    const second = call.command("playback", WELCOME, LONG);
    await entered;
    if (digits !== "4821") throw new Error(digits);
    await call.api(`uuid_break ${uuid} all`);
    await second;
    await call.command("bridge", "user/1000", LONG);
    await call.hangup("NORMAL_CLEARING");
    await ended;
    await call.exit();
  } catch (error) {
    console.error(error);
    call.end();
  }
});

await server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 1024 });
