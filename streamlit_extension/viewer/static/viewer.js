// What the telemetry page adds in the browser: times in the reader's zone, live parts, a chart's read-out, keys, zoom by
// dragging, and opening a span without loading the page again. Everything works without it. Written by hand, served as
// it is: no build step.
"use strict";
(() => {
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  const full = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const exact = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
  });
  const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

  function ago(at, now) {
    const seconds = Math.max(0, (now - at) / 1000);
    if (seconds < 2) return "just now";
    if (seconds < 90) return `${Math.floor(seconds)} s ago`;
    if (seconds < 5400) return `${Math.floor(seconds / 60)} min ago`;
    if (seconds < 129600) return `${Math.floor(seconds / 3600)} h ago`;
    return `${Math.floor(seconds / 86400)} d ago`;
  }

  function write(time, now) {
    const at = new Date(time.dateTime);
    if (isNaN(at)) return;
    const today = at.toDateString() === now.toDateString();
    const forms = {
      ago: () => ago(at, now),
      minute: () => (now - at > 864e5 ? `${day.format(at)}, ${minute.format(at)}` : minute.format(at)),
      clock: () => exact.format(at),
      full: () => (today ? full.format(at) : `${day.format(at)}, ${full.format(at)}`),
    };
    const said = (forms[time.dataset.form] || forms.full)();
    if (time.textContent !== said) time.textContent = said;
    if (!time.title) time.title = zone.format(at);
  }

  function writeTimes(root) {
    const now = new Date();
    root.querySelectorAll("time[datetime]").forEach((time) => write(time, now));
  }

  // -- live parts -----------------------------------------------------------------------------------------------------

  const main = document.getElementById("main");

  async function fetched(address) {
    const answer = await fetch(address, { headers: { accept: "text/html" }, credentials: "same-origin" });
    if (!answer.ok) throw new Error(answer.status);
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  function busy(part) {
    return part.contains(document.activeElement) || part.matches(":hover") || part.querySelector("details.entry[open]");
  }

  async function refresh() {
    const next = await fetched(location.href);
    document.querySelectorAll("[data-part]").forEach((part) => {
      const fresh = next.getElementById(part.id);
      if (fresh && !busy(part)) {
        writeTimes(fresh);
        if (fresh.innerHTML !== part.innerHTML) part.replaceChildren(...fresh.childNodes);
      }
    });
  }

  function live() {
    const every = Number(main && main.dataset.live) * 1000;
    if (!every) return;
    let wait = every;
    const again = () => setTimeout(async () => {
      if (!document.hidden) {
        try {
          await refresh();
          wait = every;
          main.dataset.state = "live";
        } catch {
          wait = Math.min(wait * 2, 60000);
          main.dataset.state = "stale";
        }
      }
      again();
    }, wait);
    again();
  }

  // -- opening a span in place ------------------------------------------------------------------------------------------

  async function swap(address, push) {
    let next;
    try {
      next = await fetched(address);
    } catch {
      location.href = address;
      return;
    }
    const mine = document.getElementById("split");
    const fresh = next.getElementById("split");
    if (!mine || !fresh) {
      location.href = address;
      return;
    }
    writeTimes(fresh);
    mine.replaceWith(fresh);
    if (push) history.pushState({ swap: true }, "", address);
    const detail = document.getElementById("detail");
    if (detail && address.includes("#detail")) {
      detail.focus({ preventScroll: true });
      if (innerWidth < 992) detail.scrollIntoView();
    }
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-swap]");
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    swap(link.href, true);
  });
  addEventListener("popstate", () => {
    if (document.getElementById("split")) swap(location.href, false);
  });

  // -- keys: / searches, j and k go through rows, [ and ] to the runs around ----------------------------------------------

  const ROWS = "a.row, .fall .name a, .timeline a.row, .loglist summary, .comps summary";

  document.addEventListener("keydown", (event) => {
    if (event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const named = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector(".find input").focus();
    } else if (event.key === "j" || event.key === "k") {
      const rows = [...document.querySelectorAll(ROWS)].filter((row) => row.offsetParent !== null);
      const at = rows.indexOf(document.activeElement);
      const next = rows[at < 0 ? 0 : at + (event.key === "j" ? 1 : -1)];
      if (next) next.focus();
    } else if (named) {
      named.click();
    }
  });

  // -- a chart's read-out ---------------------------------------------------------------------------------------------

  function nearest(points, at) {
    let low = 0;
    let high = points.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < at) low = middle + 1;
      else high = middle;
    }
    const before = points[low - 1];
    return before && at - before[0] < points[low][0] - at ? before : points[low];
  }

  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest && event.target.closest(".plot");
    document.querySelectorAll(".readout, .cursor").forEach((old) => old.parentNode !== plot && old.remove());
    if (!plot) return;
    const chart = plot.parentNode;
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const from = Number(chart.dataset.from);
    const at = from + share * (Number(chart.dataset.to) - from);
    const found = JSON.parse(chart.dataset.series).filter((curve) => curve.points.length)
      .map((curve) => [curve.name, nearest(curve.points, at)]);
    if (!found.length) return;
    let readout = plot.querySelector(".readout");
    let cursor = plot.querySelector(".cursor");
    if (!readout) {
      readout = document.createElement("div");
      cursor = document.createElement("div");
      readout.className = "readout";
      cursor.className = "cursor";
      plot.append(cursor, readout);
    }
    readout.replaceChildren();
    const head = document.createElement("div");
    head.textContent = full.format(new Date(found[0][1][0]));
    readout.append(head, ...found.map(([name, point]) => {
      const line = document.createElement("div");
      line.textContent = `${name || "value"}  ${point[2]}`;
      return line;
    }));
    cursor.style.left = `${100 * share}%`;
    readout.style.left = share > 0.55 ? "auto" : `calc(${100 * share}% + 10px)`;
    readout.style.right = share > 0.55 ? `calc(${100 * (1 - share)}% + 10px)` : "auto";
  });

  // -- zoom by dragging over the axis -----------------------------------------------------------------------------------

  let drag = null;
  document.addEventListener("pointerdown", (event) => {
    const lane = event.target.closest("[data-drag]");
    if (!lane || event.button) return;
    const mark = document.createElement("div");
    mark.className = "select";
    lane.append(mark);
    drag = { lane, mark, box: lane.getBoundingClientRect(), from: event.clientX };
    event.preventDefault();
  });
  const shares = (event) => [drag.from, event.clientX]
    .map((x) => Math.min(1, Math.max(0, (x - drag.box.left) / drag.box.width))).sort((a, b) => a - b);
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [left, right] = shares(event);
    drag.mark.style.left = `${100 * left}%`;
    drag.mark.style.width = `${100 * (right - left)}%`;
  });
  document.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const [left, right] = shares(event);
    const fall = drag.lane.closest(".waterfall");
    drag.mark.remove();
    drag = null;
    if (right - left < 0.01) return;
    const offset = Number(fall.dataset.offset);
    const length = Number(fall.dataset.length);
    const zoom = `${(offset + left * length).toFixed(7)}-${(offset + right * length).toFixed(7)}`;
    swap(fall.dataset.zoom.replace("ZOOM", zoom), true);
  });

  // -- folding what is below a span -------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.fold");
    if (!button) return;
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    const row = button.closest(".fall");
    const depth = Number(row.dataset.depth);
    let folded = Infinity; // rows below one that is folded itself stay hidden
    for (let next = row.nextElementSibling; next && Number(next.dataset.depth) > depth; next = next.nextElementSibling) {
      const at = Number(next.dataset.depth);
      if (at <= folded) folded = Infinity;
      next.hidden = !open || at > folded;
      const own = next.querySelector("button.fold");
      if (folded === Infinity && own && own.getAttribute("aria-expanded") === "false") folded = at;
    }
  });

  writeTimes(document);
  setInterval(() => document.hidden || writeTimes(document), 10000);
  if (location.hash === "#detail" && document.getElementById("detail")) document.getElementById("detail").focus();
  live();
})();
