"use strict";
// LDS against cost, with the line of what is best for its cost.
(() => {
  const { load, colors, filled, draw, width, options, state, remember, fixed, ceilingOf, fillTable, redrawWith } = window.charts;
  const form = document.getElementById("controls");
  if (!form) return;
  const task = document.getElementById("task");
  const cost = document.getElementById("cost");
  const HEIGHT = 400;

  const rowsOf = (data) =>
    Object.entries(data.methods)
      .flatMap(([name, method]) => method.costs.filter((run) => run.variant !== "oracle").map((run) => ({ ...run, name, family: method.control ? "control" : method.family || "other" })))
      .map((row) => ({ ...row, timed: `${row.threads} thread${row.threads === 1 ? "" : "s"} of ${row.cpu}`, cost: cost.value === "seconds" ? Math.max(row.seconds, 0.001) : row.bytes / 1e6 }))
      .filter((row) => row.cost > 0)
      .sort((a, b) => a.cost - b.cost || b.lds - a.lds);

  const frontier = (rows) => {
    let best = -Infinity;
    return rows.filter((row) => row.lds > best && ((best = row.lds), true));
  };

  // Names beside their points where there is room, those on the frontier first; hovering tells the others.
  const labels = (rows, front, xs, ys, wide) => {
    const at = (row) => [(wide * Math.log(row.cost / xs[0])) / Math.log(xs[1] / xs[0]), HEIGHT * (1 - (row.lds - ys[0]) / (ys[1] - ys[0]))];
    const taken = rows.map(at).map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
    front.map(at).forEach(([x, y], i, steps) => {
      if (i === 0) return; // each step of the frontier: along, then up
      const [before, level] = steps[i - 1];
      taken.push([before, level - 1, x, level + 1], [x - 1, y, x + 1, level]);
    });
    const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
    const sides = [["right", -9, -9], ["left", 9, 9], ["left", 9, -9], ["right", -9, 9], ["left", 10, 0], ["right", -10, 0]];
    const named = new Set();
    return [...front].reverse().concat(rows).flatMap((row) => {
      if (named.has(row.name)) return [];
      const [x, y] = at(row);
      const length = 7 * row.name.length;
      for (const [align, dx, dy] of sides) {
        const start = align === "left" ? x + dx : x + dx - length;
        const box = [start, y + dy - 8, start + length, y + dy + 8];
        if (box[0] < 2 || box[2] > wide || box[1] < 0 || box[3] > HEIGHT || taken.some((other) => overlap(box, other))) continue;
        taken.push(box);
        named.add(row.name);
        return [{ ...row, align, dx, dy, strong: front.includes(row) }];
      }
      return [];
    });
  };

  const render = async () => {
    const data = await load(task.value);
    remember({ task: task.value, cost: cost.value === "seconds" ? "" : cost.value });
    const rows = rowsOf(data);
    // Times of other machines or thread counts cannot be compared: those of the most frequent pair make the frontier.
    const ways = rows.map((row) => row.timed);
    const often = (one) => ways.filter((way) => way === one).length;
    const usual = ways.reduce((best, way) => (often(way) > often(best) ? way : best), ways[0]);
    const comparable = (row) => cost.value !== "seconds" || row.timed === usual;
    const front = frontier(rows.filter(comparable));
    const c = colors();
    const inside = rows.filter((row) => row.family !== "control" || row.lds >= -0.1); // far below zero lies what is wrong on purpose
    const costs = rows.map((row) => row.cost);
    const xs = rows.length ? [Math.min(...costs) / 2, Math.max(...costs) * 2] : [0.1, 10];
    const ys = [Math.min(-0.05, ...inside.map((row) => row.low)), Math.max(0.1, data.ceiling ?? 0, ...inside.map((row) => row.high)) + 0.05];
    const outside = rows.filter((row) => row.lds < ys[0]);
    const unit = cost.value === "seconds" ? "seconds" : "MB";
    const x = { field: "cost", type: "quantitative", scale: { type: "log", domain: xs, nice: false }, title: unit === "seconds" ? "seconds (log)" : "peak memory, MB (log)", axis: { grid: false, labelOverlap: true, format: "~g" } };
    const y = (field) => ({ field, type: "quantitative", title: "LDS", scale: { domain: ys, nice: false, zero: false } });
    const tooltip = [{ field: "name", type: "nominal", title: "attributor" }, { field: "variant", type: "nominal", title: "hyperparameters" }, { field: "lds", type: "quantitative", title: "LDS", format: ".4f" }, { field: "cost", type: "quantitative", title: unit, format: ".3~g" }, { field: "timed", type: "nominal", title: "on" }];
    const named = (some) => some.map((row) => `${row.name} (${row.variant}, ${fixed(row.lds)})`).join(", ");
    reading.textContent = rows.length ? `On the frontier of LDS and ${unit}: ${named(front)}.${rows.every(comparable) ? "" : ` Timed on ${usual}; faint points were timed otherwise and are not compared.`}${outside.length ? ` Below the frame: ${named(outside)}.` : ""}` : "No measured record on this task yet.";
    fillTable(["attributor", "hyperparameters", unit, "timed on", "LDS", "95 % interval", "on the frontier", "record"], rows.map((row) => [row.name, row.variant, Number(row.cost.toPrecision(3)).toString(), row.timed, fixed(row.lds), `${fixed(row.low)} to ${fixed(row.high)}`, front.includes(row) ? "yes" : "", { text: row.id.slice(0, 10), href: `records/${row.id}.html` }]));
    const variants = ["default", "selected", "custom"].filter((variant) => rows.some((row) => row.variant === variant));
    const wide = width();
    const text = (align, dx, dy) => ({ data: { values: written.filter((row) => row.align === align && row.dx === dx && row.dy === dy) }, mark: { type: "text", align, dx, dy }, encoding: { x, y: y("lds"), text: { field: "name", type: "nominal" }, color: { condition: { test: "datum.strong", value: c.ink }, value: c.soft } } });
    const written = labels(inside.filter((row) => row.lds >= ys[0]), front, xs, ys, wide);
    const sides = [...new Map(written.map(({ align, dx, dy }) => [`${align} ${dx} ${dy}`, [align, dx, dy]])).values()];
    await draw({
      width: wide, height: HEIGHT, config: filled("config", {}, c),
      layer: [
        { data: { values: ceilingOf(data) }, mark: { type: "rule", strokeDash: [5, 4], color: c.soft }, encoding: { y: y("lds") } },
        { data: { values: ceilingOf(data) }, mark: { type: "text", align: "left", x: 6, dy: 10 }, encoding: { y: y("lds"), text: { field: "text", type: "nominal" } } },
        { data: { values: front }, mark: { type: "line", interpolate: "step-after", color: c.accent, strokeWidth: 2, opacity: 0.6 }, encoding: { x, y: y("lds"), order: { field: "cost", type: "quantitative" } } },
        { data: { values: inside }, mark: { type: "rule", opacity: 0.5, color: c.soft }, encoding: { x, y: y("low"), y2: { field: "high" } } },
        { data: { values: inside }, mark: { type: "point", filled: true, size: 100 }, encoding: { opacity: { condition: { test: unit === "seconds" ? `datum.timed === ${JSON.stringify(usual)}` : "true", value: 1 }, value: 0.3 }, x, y: y("lds"), tooltip, shape: { field: "variant", type: "nominal", title: null, scale: { domain: variants, range: variants.map((variant) => ({ default: "square", selected: "diamond", custom: "triangle-up" })[variant]) } }, color: { field: "variant", type: "nominal", title: null, scale: { domain: variants, range: variants.map((variant) => c[variant] ?? c.ink) } } } },
        ...sides.map((side) => text(...side)),
      ],
    });
  };

  const reading = document.getElementById("reading");
  const wanted = state();
  const tasks = form.dataset.tasks.split(" ");
  options(task, tasks.map((name) => [name, name]), wanted.get("task"));
  if (wanted.get("cost") === "bytes") cost.value = "bytes";
  form.addEventListener("change", render);
  form.addEventListener("submit", (event) => event.preventDefault());
  redrawWith(render);
  render();
})();
