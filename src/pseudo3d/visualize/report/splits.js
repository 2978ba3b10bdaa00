"use strict";
// A run has a map for each of its splits, which may be of different networks: the one that is looked at counts.
for (const run of D.runs) {
  const view = () => run.views.find(each => each.split === state.split) || run.views[0];
  Object.defineProperty(run, "map", { get: () => view() ? view().map : [] });
  Object.defineProperty(run, "noMap", { get: () => view() ? view().noMap : "" });
}
