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

// Draw the parts of the page again that show calls which have changed: data-calls names one, or is empty for all.
// Without events, as while Redis is away, they are drawn every few seconds.
const parts = () => document.querySelectorAll("[data-calls]");
if (parts().length) {
  const events = new EventSource("/console/events");
  events.addEventListener("calls", ({ data }) => {
    const changed = JSON.parse(data);
    for (const part of parts()) {
      const shown = part.dataset.calls;
      if (!shown || !changed.length || changed.includes(shown)) window.htmx.trigger(part, "calls-changed");
    }
  });
  window.addEventListener("pagehide", () => events.close());
}
