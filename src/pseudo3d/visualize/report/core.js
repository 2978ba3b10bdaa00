"use strict";
// What all parts of the page share: the data, thumbnails, the tip, the player. Text from data is set as text, never as HTML.
const D = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black", "#999933", "#882255", "#44AA99"];
const state = { split: "", selected: -1, pointed: -1, drawn: [], maps: [] };

function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}
const percent = share => `${(100 * share).toFixed(1)}%`;
const count = number => number.toLocaleString("en").replaceAll(",", "\u2009");
const say = text => { document.getElementById("live").textContent = text; };
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = index => COLOURS[index % COLOURS.length] === "black" ? css("--black") : COLOURS[index % COLOURS.length];
const fileName = path => path.slice(path.lastIndexOf("/") + 1);
const folderName = path => path.slice(0, path.lastIndexOf("/") + 1);

function section(id, title, hint) {
  const made = h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title),
    hint ? h("p", { class: "hint" }, hint) : null);
  document.querySelector("main").append(made);
  return made;
}

// The scores of the chosen split: of a run with one split only, those.
for (const run of D.runs) {
  for (const view of run.views) {
    view.run = run;
    view.classes = view.classes || run.classes;
    view.row = new Map(view.video.map((video, row) => [video, row]));
    view.hit = view.top.map((top, row) => view.truth[row].includes(top[0]));
    view.order = [...view.top.keys()].filter(row => view.truth[row].length && !view.hit[row])
      .sort((a, b) => view.confidence[b] - view.confidence[a]);
  }
}
const splits = [...new Set(D.runs.flatMap(run => run.views.map(view => view.split)))].filter(split => split).sort();
const views = () => D.runs.map(run => run.views.find(view => view.split === state.split) || (run.views.length === 1 ? run.views[0] : null)).filter(view => view);
const viewName = view => D.runs.length > 1 ? `${D.runs.indexOf(view.run) + 1}  ${view.run.name}` : view.run.name;
const truthText = (view, row) => view.truth[row].map(index => view.classes[index]).join(", ") || "not known";
const scoreText = (view, value) => view.kind === "probability" ? value.toFixed(2) : value.toFixed(2).replace("-", "−");

// A sheet is decoded when the first of its thumbnails is shown.
const sheetURLs = [];
function sheetURL(index) {
  if (!sheetURLs[index]) {
    const bytes = Uint8Array.from(atob(document.getElementById(`sheet-${index}`).textContent), c => c.charCodeAt(0));
    sheetURLs[index] = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
  }
  return sheetURLs[index];
}
function thumb(video, width, eager) {
  const [w, height, columns] = D.tile, scale = width / w, place = D.sprite[video];
  const box = h("span", { class: place < 0 ? "thumb none" : "thumb" });
  box.style.width = `${width}px`;
  box.style.height = `${Math.round(height * scale)}px`;
  if (place < 0) {
    box.textContent = `no picture: ${D.reasons[video] || "none was made"}`;
    return box;
  }
  const inSheet = place % (columns * columns);
  const image = h("img", { alt: `a frame of ${D.videos[video]}`, decoding: eager ? "sync" : "async", draggable: "false", "data-video": video });
  image.style.width = `${columns * w * scale}px`;
  image.style.left = `${-(inSheet % columns) * w * scale}px`;
  image.style.top = `${-Math.floor(inSheet / columns) * height * scale}px`;
  image.src = sheetURL(Math.floor(place / (columns * columns)));
  box.append(image);
  return box;
}

const tip = document.getElementById("tip");
function showTip(x, y, ...content) {
  tip.replaceChildren(...content.filter(each => each));
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), gap = 16;
  const left = x + gap + box.width > innerWidth ? x - gap - box.width : x + gap;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y + gap, innerHeight - box.height - 4))}px`;
}
const hideTip = () => { tip.hidden = true; };
function verdict(view, row) {
  const known = view.truth[row].length > 0, right = view.hit[row];
  return h("span", { class: !known ? "" : right ? "good" : "bad" },
    `${!known ? "" : right ? "✓ " : "✗ "}${view.classes[view.top[row][0]]}  ${scoreText(view, view.scores[row][0])}`);
}
function videoLines(video, only) {
  const lines = [h("b", {}, D.videos[video])];
  for (const view of only || views()) {
    const row = view.row.get(video);
    if (row === undefined) continue;
    if (lines.length === 1) lines.push(h("div", {}, `true: ${truthText(view, row)}`));
    lines.push(h("div", {}, D.runs.length > 1 && !only ? `${D.runs.indexOf(view.run) + 1}: ` : "predicted: ", verdict(view, row)));
  }
  return lines;
}

const player = document.getElementById("player");
function predictions(view, row) {
  const lowest = Math.min(0, ...view.scores[row]), highest = Math.max(...view.scores[row], lowest + 1e-9);
  const body = view.top[row].map((index, i) => {
    const bar = h("i"), value = view.scores[row][i];
    bar.style.width = `${100 * (view.kind === "probability" ? value : (value - lowest) / (highest - lowest))}%`;
    const right = view.truth[row].includes(index);
    return h("tr", {}, h("td", { class: right ? "good" : null }, right ? `✓ ${view.classes[index]}` : view.classes[index]),
      h("td", { class: "number" }, h("span", { class: "bar", "aria-hidden": "true" }, bar), scoreText(view, value)));
  });
  return h("div", {}, h("h3", {}, viewName(view)), h("p", { class: "hint" }, `true: ${truthText(view, row)}`),
    h("table", {}, h("tbody", {}, ...body)));
}
function openVideo(video) {
  hideTip();
  select(video);
  const clip = D.clip[video], failed = D.reasons[video];
  let shown;
  if (clip) {
    shown = h("video", { src: `${D.clips}/${clip}`, controls: true, autoplay: true, loop: true, muted: true, playsinline: true, "aria-label": D.videos[video] });
    shown.muted = true;
    shown.addEventListener("error", () => shown.replaceWith(h("div", {}, thumb(video, 256),
      h("p", { class: "bad" }, `The clip is not there: ${D.clips}/${clip}. Keep that folder beside this page.`))));
  } else {
    shown = h("div", {}, thumb(video, 256), failed ? null : h("p", { class: "hint" }, "No clip of this video was made: p3d report --previews all makes them."));
  }
  const said = views().filter(view => view.row.has(video)).map(view => predictions(view, view.row.get(video)));
  player.replaceChildren(h("button", { class: "button close", onclick: () => player.close() }, "Close"),
    h("h2", { id: "player-title" }, D.videos[video]), shown, h("div", { class: "said" }, ...said));
  if (!player.open) player.showModal();
}
player.addEventListener("close", () => player.replaceChildren());
player.addEventListener("click", event => { if (event.target === player) player.close(); });

function select(video) {
  state.selected = video;
  redraw();
  for (const card of document.querySelectorAll(".card")) card.classList.toggle("selected", Number(card.dataset.video) === video);
}
function redraw() { for (const draw of state.drawn) draw(); }

// A canvas that is as sharp as the screen; draw(context, width, height) in CSS pixels.
function canvas(attributes, shape, draw) {
  const made = h("canvas", attributes), context = made.getContext("2d");
  const paint = () => {
    const width = made.clientWidth, height = Math.round(shape(width)), ratio = Math.max(1, devicePixelRatio || 1);
    if (!width) return;
    made.width = Math.round(width * ratio);
    made.height = Math.round(height * ratio);
    made.style.height = `${height}px`;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(context, width, height);
  };
  state.drawn.push(paint);
  let before = 0;
  new ResizeObserver(() => { if (made.clientWidth !== before) { before = made.clientWidth; paint(); } }).observe(made);
  return made;
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
matchMedia("print").addEventListener("change", redraw);
