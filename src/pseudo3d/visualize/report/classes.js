"use strict";
// Accuracy of each class (a table that sorts) and the confusion matrices.
function byClass(view) {
  const found = new Map();
  for (const [truth, predicted, videos] of view.confusion) {
    const each = found.get(view.classes[truth]) || { all: 0, right: 0 };
    each.all += videos;
    if (truth === predicted) each.right += videos;
    found.set(view.classes[truth], each);
  }
  return found;
}

function buildClasses() {
  const shown = views().filter(view => view.confusion.length);
  if (!shown.length) return;
  const tables = shown.map(byClass), names = [...new Set(shown.flatMap(view => view.classes))];
  const rows = names.filter(name => tables.some(table => table.has(name))).map(name => {
    const found = tables.map(table => table.get(name));
    const shares = found.map(each => each ? each.right / each.all : NaN);
    return { name, videos: Math.max(...found.map(each => each ? each.all : 0)), shares, change: shares.at(-1) - shares[0] };
  });
  const keys = [["class", row => row.name], ["videos", row => row.videos],
    ...shown.map((view, i) => [shown.length > 1 ? viewName(view) : "accuracy", row => row.shares[i]])];
  if (shown.length > 1) keys.push([`${D.runs.indexOf(shown.at(-1).run) + 1} − ${D.runs.indexOf(shown[0].run) + 1}`, row => row.change]);
  const body = h("tbody"), heads = [];
  const fill = (column, direction) => {
    const key = keys[column][1];
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (typeof x === "string") return direction * x.localeCompare(y, undefined, { numeric: true });
      return (Number.isNaN(x) - Number.isNaN(y)) || direction * (x - y) || a.name.localeCompare(b.name);
    });
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : direction > 0 ? "ascending" : "descending"));
    body.replaceChildren(...rows.map(row => h("tr", {},
      h("th", { scope: "row" }, h("button", { class: "link", onclick: () => showVideos({ label: row.name }) }, row.name)),
      h("td", { class: "number" }, count(row.videos)), ...row.shares.map(share => h("td", { class: "number" }, ...bar(share))),
      shown.length > 1 ? h("td", { class: "number" }, Number.isNaN(row.change) ? "–" : `${row.change > 0 ? "+" : row.change < 0 ? "−" : ""}${Math.abs(100 * row.change).toFixed(1)}`) : null)));
  };
  keys.forEach(([title], column) => {
    const head = h("th", { scope: "col", class: column ? "number" : null });
    head.append(h("button", { class: "sort", onclick: () => {
      const down = head.getAttribute("aria-sort") === "ascending" || (column > 0 && head.getAttribute("aria-sort") === "none");
      fill(column, down ? -1 : 1);
      say(`sorted by ${title}, ${down ? "highest first" : "lowest first"}`);
    } }, title));
    heads.push(head);
  });
  const part = section("classes", "Accuracy of each class", "Click a heading to sort, a class to see its videos.");
  part.append(h("div", { class: "tall", tabindex: "0", role: "region", "aria-label": "Accuracy of each class" },
    h("table", {}, h("thead", {}, h("tr", {}, ...heads)), body)));
  fill(2, 1);
}
function bar(share) {
  if (Number.isNaN(share)) return ["–"];
  const inner = h("i");
  inner.style.width = `${100 * share}%`;
  return [h("span", { class: "bar", "aria-hidden": "true" }, inner), percent(share)];
}

function buildMatrices() {
  const shown = views().filter(view => view.confusion.length);
  if (!shown.length) return;
  const part = section("confusion", "Confusion matrix",
    "Rows are true classes, columns predicted ones; a cell is as dark as its share of the row. Point at a cell, or move with the arrow keys; a click or Enter shows its videos.");
  const panels = h("div", { class: "panels" });
  part.append(panels);
  for (const view of shown) panels.append(matrixPanel(view, shown.length === 1));
}

function matrixPanel(view, single) {
  const n = view.classes.length, cells = new Map(), totals = new Array(n).fill(0);
  for (const [truth, predicted, videos] of view.confusion) {
    cells.set(truth * n + predicted, videos);
    totals[truth] += videos;
  }
  const cursor = { truth: -1, predicted: -1 };
  const measure = h("canvas").getContext("2d");
  measure.font = "12px system-ui, sans-serif";
  const longest = 10 + Math.ceil(Math.max(...view.classes.map(name => measure.measureText(name).width)));
  let side = 1, left = 0, above = 0;
  const layout = width => {
    // names take the room that cells of 28 pixels leave, and at least 150; they are no smaller than can be read
    const room = Math.min(longest, Math.max(150, Math.min(width / 2, width - 28 * n))), named = (width - room) / n >= 9;
    left = named ? room : 22;
    above = named ? Math.min(longest, 260) : 22;
    side = Math.min(64, (width - left - 1) / n);
    return above + side * n + 1;
  };
  const draw = (g, width, height) => {
    const font = "system-ui, sans-serif", cell = css("--cell");
    g.font = `11px ${font}`;
    g.fillStyle = css("--ink");
    g.strokeStyle = css("--line");
    if (left > 22) drawNames(g, view.classes, side, left, above);
    else {
      g.fillStyle = css("--soft");
      g.fillText("predicted →", left, 14);
      g.save(); g.translate(14, above); g.rotate(-Math.PI / 2); g.textAlign = "right"; g.fillText("← true", 0, 0); g.restore();
    }
    for (const [place, videos] of cells) {
      const truth = Math.floor(place / n), predicted = place % n, share = videos / totals[truth];
      g.fillStyle = `rgba(${cell}, ${0.06 + 0.94 * share})`;
      g.fillRect(left + predicted * side, above + truth * side, Math.max(1, side - (side > 5)), Math.max(1, side - (side > 5)));
      if (side >= 22) {
        g.fillStyle = share > 0.5 ? css("--paper") : css("--ink");
        g.textAlign = "center"; g.textBaseline = "middle";
        g.fillText(videos, left + (predicted + 0.5) * side, above + (truth + 0.5) * side);
        g.textAlign = "left"; g.textBaseline = "alphabetic";
      }
    }
    g.strokeRect(left - 0.5, above - 0.5, side * n + 1, side * n + 1);
    if (cursor.truth >= 0) {
      g.strokeStyle = css("--bad"); g.lineWidth = 2;
      g.strokeRect(left + cursor.predicted * side - 1, above + cursor.truth * side - 1, Math.max(side, 4) + 1, Math.max(side, 4) + 1);
    }
  };
  const text = () => {
    const videos = cells.get(cursor.truth * n + cursor.predicted) || 0, all = totals[cursor.truth];
    return [`true: ${view.classes[cursor.truth]}`, `predicted: ${view.classes[cursor.predicted]}`,
      `${count(videos)} of ${count(all)} videos${all ? ` (${percent(videos / all)})` : ""}`];
  };
  const made = canvas({ tabindex: "0", role: "img", class: "matrix-canvas",
    "aria-label": `Confusion matrix of ${view.run.name}: ${n} classes. The list beside it names the most frequent confusions; arrow keys move from cell to cell.` }, layout, draw);
  const paint = () => state.drawn.forEach(each => each === paintOwn && each());
  const paintOwn = state.drawn.at(-1);
  const at = event => {
    const box = made.getBoundingClientRect();
    const predicted = Math.floor((event.clientX - box.left - left) / side), truth = Math.floor((event.clientY - box.top - above) / side);
    const inside = predicted >= 0 && truth >= 0 && predicted < n && truth < n;
    const moved = inside ? truth !== cursor.truth || predicted !== cursor.predicted : cursor.truth >= 0;
    Object.assign(cursor, inside ? { truth, predicted } : { truth: -1, predicted: -1 });
    if (moved) paint();
    return inside;
  };
  const choose = () => showVideos({ view, truth: view.classes[cursor.truth], predicted: view.classes[cursor.predicted] });
  made.addEventListener("pointermove", event => at(event) ? showTip(event.clientX, event.clientY, ...text().map(line => h("div", {}, line))) : hideTip());
  made.addEventListener("pointerleave", () => { hideTip(); cursor.truth = -1; paint(); });
  made.addEventListener("click", event => { if (at(event)) choose(); });
  made.addEventListener("blur", () => { hideTip(); cursor.truth = -1; paint(); });
  made.addEventListener("keydown", event => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter" && cursor.truth >= 0) choose();
    if (!step) return;
    event.preventDefault();
    if (cursor.truth < 0) Object.assign(cursor, { truth: 0, predicted: 0 });
    else {
      cursor.truth = Math.max(0, Math.min(n - 1, cursor.truth + step[0]));
      cursor.predicted = Math.max(0, Math.min(n - 1, cursor.predicted + step[1]));
    }
    paint();
    say(text().join(", "));
    const box = made.getBoundingClientRect();
    showTip(box.left + left + (cursor.predicted + 1) * side, box.top + above + (cursor.truth + 1) * side, ...text().map(line => h("div", {}, line)));
  });
  return h("figure", { class: single ? "single" : null }, h("h3", {}, viewName(view)), h("div", {}, made), confusions(view, totals));
}
function drawNames(g, names, side, left, above) {
  const clip = (name, room) => {
    if (g.measureText(name).width <= room) return name;
    let kept = name.length;
    while (kept > 1 && g.measureText(`${name.slice(0, kept)}…`).width > room) kept -= 1;
    return `${name.slice(0, kept)}…`;
  };
  g.font = `${Math.min(12, Math.max(8, side - 1))}px system-ui, sans-serif`;
  g.textBaseline = "middle";
  names.forEach((name, i) => {
    g.textAlign = "right";
    g.fillText(clip(name, left - 6), left - 5, above + (i + 0.5) * side);
    g.save();
    g.translate(left + (i + 0.5) * side, above - 5);
    g.rotate(-Math.PI / 2);
    g.textAlign = "left";
    g.fillText(clip(name, above - 6), 0, 0);
    g.restore();
  });
  g.textAlign = "left"; g.textBaseline = "alphabetic"; g.font = "12px system-ui, sans-serif";
}
function confusions(view, totals) {
  const most = view.confusion.filter(([truth, predicted]) => truth !== predicted).sort((a, b) => b[2] - a[2]).slice(0, 10);
  const items = most.map(([truth, predicted, videos]) => h("li", {},
    h("button", { class: "link", onclick: () => showVideos({ view, truth: view.classes[truth], predicted: view.classes[predicted] }) },
      `${view.classes[truth]} → ${view.classes[predicted]}`), h("span", {}, `${count(videos)} of ${count(totals[truth])}`)));
  return h("figcaption", {}, most.length ? "Most frequent confusions (true → predicted)" : "No video was confused with another class.", h("ul", { class: "pairs" }, ...items));
}
