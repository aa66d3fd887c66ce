// What HTML can't do: ask before an action, say when the node no longer answers, and follow calls.
"use strict";
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});
const away = () => document.getElementById("away");
for (const name of ["htmx:sendError", "htmx:responseError", "htmx:timeout"]) {
  document.addEventListener(name, () => { away().hidden = false; });
}
document.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.successful) away().hidden = true;
});

// Draw parts of the page again when the node says so: those of a call when it changes (data-calls names it, or is empty
// for all calls), those with data-ticks every so many ticks. Only while no events come, as while Redis is away, the page
// asks by itself, and says so. A hidden page has no stream: a browser opens six connections (HTTP/1.1) for all its tabs.
const PATIENCE = 12000; // Milliseconds without a tick after which events count as lost: the node sends one every 5 s.
const ALONE = 5000;
const parts = () => document.querySelectorAll("[data-calls], [data-ticks]");
const draw = (part) => window.htmx.trigger(part, "changed");

if (parts().length) {
  let events = null;
  let ticks = 0;
  let silence = 0;
  let alone = 0;

  const drawn = (wanted) => { for (const part of parts()) if (wanted(part.dataset)) draw(part); };
  const all = () => drawn(() => true);

  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(lost, PATIENCE);
    clearInterval(alone);
    alone = 0;
    document.getElementById("polling").hidden = true;
  };
  const lost = () => {
    if (alone) return;
    document.getElementById("polling").hidden = false;
    alone = setInterval(() => {
      all();
      // The browser tries again after a broken connection, but not after an answer that isn't a stream, or a silent one.
      if (events.readyState !== EventSource.CONNECTING) listen();
    }, ALONE);
  };
  const listen = () => {
    events?.close();
    clearTimeout(silence);
    silence = setTimeout(lost, PATIENCE);
    events = new EventSource("/console/events");
    events.onopen = () => {
      heard();
      all(); // What changed since the page was drawn isn't told.
    };
    events.onerror = lost;
    events.addEventListener("calls", ({ data }) => {
      heard();
      const changed = JSON.parse(data);
      drawn(({ calls }) => calls !== undefined && (!calls || !changed.length || changed.includes(calls)));
    });
    events.addEventListener("tick", () => {
      heard();
      ticks += 1;
      drawn((data) => data.ticks && ticks % Number(data.ticks) === 0);
    });
  };
  const rest = () => {
    events?.close();
    clearTimeout(silence);
    clearInterval(alone);
    alone = 0;
  };
  if (!document.hidden) listen();
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
  window.addEventListener("pagehide", rest);
}
