"use strict";
// The list of videos (mistakes, differences between runs, all), DeepDraw, and the start of the page.
const PAGE = 24;
const list = { kinds: [], kind: 0, label: "", search: "", cell: null, most: PAGE };

function videoKinds() {
  const shown = views(), kinds = [];
  for (const view of shown) kinds.push({ title: `surest mistakes${shown.length > 1 ? ` of ${viewName(view)}` : ""}`, view,
    rows: () => view.order.map(row => view.video[row]) });
  for (const [i, a] of shown.entries()) for (const [j, b] of shown.entries()) {
    if (i !== j) kinds.push({ title: `right in ${viewName(a)}, wrong in ${viewName(b)}`, view: b,
      rows: () => b.order.map(row => b.video[row]).filter(video => a.row.has(video) && a.hit[a.row.get(video)]) });
  }
  if (shown.length > 1) kinds.push({ title: "wrong in every run", view: shown[0],
    rows: () => shown[0].order.map(row => shown[0].video[row]).filter(video => shown.every(view => view.row.has(video) && view.truth[view.row.get(video)].length && !view.hit[view.row.get(video)])) });
  kinds.push({ title: "all videos", view: shown[0], all: true, rows: () => [...new Set(shown.flatMap(view => view.video))].sort((a, b) => a - b) });
  return kinds;
}

function buildVideos() {
  const shown = views();
  if (!shown.length || !D.videos.length) return;
  Object.assign(list, { kinds: videoKinds(), kind: 0, label: "", search: "", cell: null, most: PAGE });
  const part = section("videos", "Videos", "Click one to play it and to see what each run says of it.");
  const kind = h("select", { id: "videos-kind", onchange: event => { list.kind = Number(event.target.value); list.cell = null; fresh(); } },
    ...list.kinds.map((each, i) => h("option", { value: i }, each.title)));
  const names = [...new Set(shown.flatMap(view => view.classes))];
  const label = h("select", { id: "videos-class", onchange: event => { list.label = event.target.value; list.cell = null; fresh(); } },
    h("option", { value: "" }, "all classes"), ...names.map(name => h("option", { value: name }, name)));
  const search = h("input", { id: "videos-search", type: "search", placeholder: "part of a path", oninput: event => { list.search = event.target.value.toLowerCase(); fresh(); } });
  const cards = h("ul", { class: "cards" }), told = h("p", { id: "videos-count", class: "hint", "aria-live": "polite" });
  const more = h("button", { class: "button", onclick: () => { list.most += 2 * PAGE; fill(); } }, "Show more");
  const fill = () => {
    const chosen = list.kinds[list.kind];
    const found = chosen.rows().filter(video => chosenVideo(shown, video));
    const cell = list.cell ? ` that are ${list.cell.truth} and were taken for ${list.cell.predicted}` : list.label ? ` of ${list.label}` : "";
    told.textContent = `${count(found.length)} video${found.length === 1 ? "" : "s"}${cell}`;
    cards.replaceChildren(...found.slice(0, list.most).map(video => h("li", {}, card(video, shown, chosen.view))));
    more.hidden = found.length <= list.most;
  };
  const fresh = () => { list.most = PAGE; fill(); };
  part.append(h("div", { class: "controls" }, h("label", {}, "show", kind), h("label", {}, "true class", label), h("label", {}, "search", search)), told, cards, more);
  list.refresh = () => { kind.value = list.kind; label.value = list.label; search.value = list.search; fresh(); };
  fresh();
}
function chosenVideo(shown, video) {
  if (list.search && !D.videos[video].toLowerCase().includes(list.search)) return false;
  if (list.cell) {
    const { view, truth, predicted } = list.cell, row = view.row.get(video);
    if (row === undefined || view.classes[view.top[row][0]] !== predicted) return false;
    return truth === predicted ? view.hit[row] : !view.hit[row] && view.truth[row].length > 0 && view.classes[view.truth[row][0]] === truth;
  }
  return !list.label || shown.some(view => view.row.has(video) && view.truth[view.row.get(video)].some(index => view.classes[index] === list.label));
}
function showVideos({ view = null, label = "", truth, predicted }) {
  list.kind = list.kinds.length - 1;
  list.label = truth === undefined ? label : "";
  list.cell = truth === undefined ? null : { view, truth, predicted };
  list.search = "";
  list.refresh();
  document.getElementById("videos").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}
function card(video, shown, main) {
  const path = D.videos[video], ordered = [main, ...shown.filter(view => view !== main)].filter(view => view.row.has(video));
  const said = ordered.map(view => h("span", {}, shown.length > 1 ? `${D.runs.indexOf(view.run) + 1}: ` : "", verdict(view, view.row.get(video))));
  const made = h("button", { class: "card", "data-video": video, title: path, onclick: () => openVideo(video) },
    thumb(video, Math.max(128, D.tile[0])), h("b", {}, fileName(path)), h("small", {}, folderName(path)),
    ordered.length ? h("span", {}, `true: ${truthText(ordered[0], ordered[0].row.get(video))}`) : null, ...said);
  made.classList.toggle("selected", video === state.selected);
  return made;
}

function buildDeepDraw() {
  const runs = D.runs.filter(run => run.pictures.length);
  if (!runs.length) return;
  const part = section("deepdraw", "DeepDraw", "Clips that excite one output of the network most, found by gradient ascent from noise.");
  for (const run of runs) {
    if (D.runs.length > 1) part.append(h("h3", {}, run.name));
    part.append(h("div", { class: "deepdraw" }, ...run.pictures.map((name, i) => h("figure", {},
      h("img", { src: `${D.clips}/${name}`, loading: "lazy", alt: `DeepDraw of ${run.labels[i]}` }), h("figcaption", {}, run.labels[i])))));
  }
}

function build() {
  hideTip();
  state.drawn = [];
  state.maps = [];
  for (const old of document.querySelectorAll("main > section:not(#results)")) old.remove();
  buildClasses();
  buildMatrices();
  buildMaps();
  buildVideos();
  buildDeepDraw();
  const nav = document.getElementById("nav"), parts = [...document.querySelectorAll("main > section")];
  nav.replaceChildren(...parts.map(part => h("a", { href: `#${part.id}` }, part.querySelector("h2").textContent)));
  if (splits.length > 1) {
    const choice = h("select", { id: "split", onchange: event => { state.split = event.target.value; build(); } },
      ...splits.map(split => h("option", { value: split, selected: split === state.split }, split)));
    nav.append(h("label", {}, "split ", choice));
  }
  nav.hidden = parts.length < 2;
}
state.split = splits[0] || "";
build();
document.documentElement.dataset.ready = "yes";
