"use strict";
// The t-SNE maps: points on a canvas, found again through a grid of cells.
const MARKERS = [
  (g, x, y, r) => { g.moveTo(x + r, y); g.arc(x, y, r, 0, 7); },
  (g, x, y, r) => g.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8),
  (g, x, y, r) => { g.moveTo(x, y - r * 1.2); g.lineTo(x + r * 1.1, y + r * 0.9); g.lineTo(x - r * 1.1, y + r * 0.9); g.closePath(); },
  (g, x, y, r) => { g.moveTo(x, y - r * 1.3); g.lineTo(x + r * 1.3, y); g.lineTo(x, y + r * 1.3); g.lineTo(x - r * 1.3, y); g.closePath(); },
  (g, x, y, r) => { g.moveTo(x, y + r * 1.2); g.lineTo(x + r * 1.1, y - r * 0.9); g.lineTo(x - r * 1.1, y - r * 0.9); g.closePath(); },
  (g, x, y, r) => { g.rect(x - r * 1.2, y - r * 0.4, r * 2.4, r * 0.8); g.rect(x - r * 0.4, y - r * 1.2, r * 0.8, r * 2.4); },
  (g, x, y, r) => { for (const s of [1, -1]) { g.moveTo(x - r, y - s * r); g.lineTo(x - r * 0.4, y - s * r); g.lineTo(x + r, y + s * r); g.lineTo(x + r * 0.4, y + s * r); g.closePath(); } },
];
const NEAR = 14, CELL = 28;
const mapState = { label: null, mistakes: false };

function buildMaps() {
  const shown = views(), withMap = shown.filter(view => view.run.map.length), without = shown.filter(view => !view.run.map.length);
  if (!shown.length) return;
  const part = section("map", "Map of the videos",
    withMap.length ? "t-SNE of the features: similar videos lie near each other. Point at one to see it, click to play it; turn the wheel with Ctrl to zoom, drag to move. With the keyboard: arrow keys go from video to video, Enter plays." : null);
  if (withMap.length) {
    const names = [...new Set(withMap.flatMap(view => view.classes.filter((_, index) => view.truth.some(truth => truth[0] === index))))];
    const style = new Map(names.map((name, i) => [name, i]));
    part.append(legend(names), h("div", { class: "controls" }, h("label", { class: "check" },
      h("input", { type: "checkbox", onchange: event => { mapState.mistakes = event.target.checked; redraw(); } }), "show mistakes only in full colour")));
    const panels = h("div", { class: "panels" });
    part.append(panels);
    for (const view of withMap) panels.append(mapPanel(view, style));
  }
  for (const view of without) part.append(h("p", { class: "hint" }, `No map of ${view.run.name}: ${view.run.noMap}`));
}

function legend(names) {
  const list = h("div", { class: "legend", role: "group", "aria-label": "Classes; press one to show it alone" });
  names.forEach((name, i) => {
    const button = h("button", { "aria-pressed": "false", onclick: () => {
      mapState.label = mapState.label === name ? null : name;
      for (const each of list.children) each.setAttribute("aria-pressed", String(each === button && mapState.label !== null));
      redraw();
    } });
    const sample = h("canvas", { width: "28", height: "28", "aria-hidden": "true" });
    sample.style.width = sample.style.height = "14px";
    const paint = () => {
      const g = sample.getContext("2d");
      g.clearRect(0, 0, 28, 28);
      g.fillStyle = colour(i);
      g.beginPath(); MARKERS[i % MARKERS.length](g, 14, 14, 9); g.fill();
    };
    state.drawn.push(paint);
    paint();
    button.append(sample, name);
    list.append(button);
  });
  return list;
}

function mapPanel(view, style) {
  const points = view.run.map.filter(([video]) => view.row.has(video)).map(([video, x, y]) => {
    const row = view.row.get(video), name = view.truth[row].length ? view.classes[view.truth[row][0]] : null;
    return { video, row, x, y, name, style: name === null ? -1 : style.get(name), sx: 0, sy: 0 };
  });
  points.sort((a, b) => a.style - b.style);
  const extent = axis => Math.max(0.2, ...points.map(point => 2 * Math.abs(point[axis] - 0.5)));
  const [wide, high] = [extent("x"), extent("y")];
  const zoom = { scale: 1, x: 0, y: 0 };
  let grid = new Map(), columns = 1, hovered = null, cursor = null, dragged = null;
  const radius = points.length > 3000 ? 2.4 : points.length > 600 ? 3.2 : 4.4;
  const place = (width, height) => {
    const pad = 14, room = Math.min((width - 2 * pad) / wide, (height - 2 * pad) / high);
    grid = new Map();
    columns = Math.ceil(width / CELL) + 1;
    for (const point of points) {
      point.sx = (width - room * zoom.scale) / 2 + room * zoom.scale * point.x + zoom.x;
      point.sy = (height - room * zoom.scale) / 2 + room * zoom.scale * point.y + zoom.y;
      if (point.sx < 0 || point.sy < 0 || point.sx > width || point.sy > height) continue;
      const cell = Math.floor(point.sy / CELL) * columns + Math.floor(point.sx / CELL);
      if (grid.has(cell)) grid.get(cell).push(point); else grid.set(cell, [point]);
    }
  };
  const faded = point => (mapState.label !== null && point.name !== mapState.label) || (mapState.mistakes && view.hit[point.row]);
  const draw = (g, width, height) => {
    place(width, height);
    for (const faint of [true, false]) {
      g.globalAlpha = faint ? 0.13 : 0.9;
      let style = null;
      g.beginPath();
      for (const point of points) {
        if (faded(point) !== faint || point.sx < -9 || point.sy < -9 || point.sx > width + 9 || point.sy > height + 9) continue;
        if (point.style !== style) {
          g.fill();
          g.beginPath();
          style = point.style;
          g.fillStyle = style < 0 ? css("--soft") : colour(style);
        }
        MARKERS[Math.max(0, point.style) % MARKERS.length](g, point.sx, point.sy, radius);
      }
      g.fill();
    }
    g.globalAlpha = 1;
    for (const point of points) {
      if (point !== cursor && point.video !== state.pointed && point.video !== state.selected) continue;
      g.lineWidth = 2; g.strokeStyle = css("--ink");
      g.beginPath(); g.arc(point.sx, point.sy, radius + 4, 0, 7); g.stroke();
    }
  };
  const made = canvas({ class: "map-canvas", tabindex: "0", role: "img", "data-run": D.runs.indexOf(view.run),
    "aria-label": `t-SNE map of ${points.length} videos of ${view.run.name}. Arrow keys go from video to video, Enter plays one; the list of videos below has them all.` },
  width => Math.min(width, 560), draw);
  const paint = state.drawn.at(-1);
  state.maps.push(paint);
  const nearest = (x, y) => {
    let best = null, least = NEAR * NEAR;
    for (let dy = -1; dy <= 1; dy += 1) for (let dx = -1; dx <= 1; dx += 1) {
      for (const point of grid.get((Math.floor(y / CELL) + dy) * columns + Math.floor(x / CELL) + dx) || []) {
        const d = (point.sx - x) ** 2 + (point.sy - y) ** 2;
        if (d < least) [best, least] = [point, d];
      }
    }
    return best;
  };
  const show = point => {
    if (hovered !== point) {
      hovered = point;
      state.pointed = point ? point.video : -1;
      for (const each of state.maps) each();  // the same video is ringed in the other runs' maps
    }
    if (!point) return hideTip();
    const box = made.getBoundingClientRect();
    return showTip(box.left + point.sx, box.top + point.sy, thumb(point.video, Math.max(128, D.tile[0]), true), ...videoLines(point.video, [view]));
  };
  const local = event => { const box = made.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const zoomBy = (factor, x, y) => {
    const scale = Math.max(1, Math.min(60, zoom.scale * factor)), by = scale / zoom.scale;
    const cx = made.clientWidth / 2, cy = made.clientHeight / 2;
    zoom.x = (x - cx) * (1 - by) + zoom.x * by;
    zoom.y = (y - cy) * (1 - by) + zoom.y * by;
    zoom.scale = scale;
    if (scale === 1) zoom.x = zoom.y = 0;
    paint();
  };
  made.addEventListener("pointerdown", event => { dragged = { x: event.clientX, y: event.clientY, zx: zoom.x, zy: zoom.y, far: false }; });
  made.addEventListener("pointermove", event => {
    if (dragged && event.buttons) {
      const dx = event.clientX - dragged.x, dy = event.clientY - dragged.y;
      dragged.far = dragged.far || Math.hypot(dx, dy) > 4;
      if (dragged.far && zoom.scale > 1) { zoom.x = dragged.zx + dx; zoom.y = dragged.zy + dy; hideTip(); paint(); return; }
    }
    show(nearest(...local(event)));
  });
  made.addEventListener("pointerleave", () => show(null));
  made.addEventListener("click", event => {
    const moved = dragged && dragged.far && zoom.scale > 1;
    dragged = null;
    const point = moved ? null : nearest(...local(event));
    if (point) { show(null); openVideo(point.video); }
  });
  made.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;  // the page scrolls
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), ...local(event));
  }, { passive: false });
  made.addEventListener("blur", () => { cursor = null; show(null); paint(); });
  made.addEventListener("keydown", event => {
    const way = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    const here = cursor || hovered;
    if (event.key === "+" || event.key === "-") zoomBy(event.key === "+" ? 1.5 : 1 / 1.5, here ? here.sx : made.clientWidth / 2, here ? here.sy : made.clientHeight / 2);
    if (event.key === "Enter" && here) {
      event.preventDefault();  // or the same key would press the dialog's first button
      openVideo(here.video);
    }
    if (!way) return;
    event.preventDefault();
    const next = here ? neighbour(points, here, way) : nearestTo(points, made.clientWidth / 2, made.clientHeight / 2);
    if (next) { cursor = next; show(next); say(`${D.videos[next.video]}, true ${truthText(view, next.row)}, predicted ${view.classes[view.top[next.row][0]]}`); }
  });
  const buttons = h("div", { class: "controls" },
    h("button", { class: "button", "aria-label": "Zoom in", onclick: () => zoomBy(1.6, made.clientWidth / 2, made.clientHeight / 2) }, "+"),
    h("button", { class: "button", "aria-label": "Zoom out", onclick: () => zoomBy(1 / 1.6, made.clientWidth / 2, made.clientHeight / 2) }, "−"),
    h("button", { class: "button", onclick: () => zoomBy(0, 0, 0) }, "All"));
  return h("figure", {}, h("h3", {}, viewName(view)), made, h("figcaption", {}, `t-SNE of ${view.run.layer}`), buttons);
}
const nearestTo = (points, x, y) => points.reduce((best, point) =>
  !best || Math.hypot(point.sx - x, point.sy - y) < Math.hypot(best.sx - x, best.sy - y) ? point : best, null);
function neighbour(points, from, [dx, dy]) {
  let best = null, least = Infinity;
  for (const point of points) {
    const along = (point.sx - from.sx) * dx + (point.sy - from.sy) * dy;
    const across = Math.abs((point.sx - from.sx) * dy) + Math.abs((point.sy - from.sy) * dx);
    if (along > 0.01 && across <= along && along + 2 * across < least) [best, least] = [point, along + 2 * across];
  }
  return best;
}
