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

  // The best point of each method has its name, those on the frontier first.
  const pen = document.createElement("canvas").getContext("2d");
  const labels = (rows, front, ceilings, xs, ys, wide) => {
    const across = (value) => (wide * Math.log(value / xs[0])) / Math.log(xs[1] / xs[0]);
    const down = (value) => HEIGHT * (1 - (value - ys[0]) / (ys[1] - ys[0]));
    const at = (row) => [across(row.cost), down(row.lds)];
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const long = (text) => pen.measureText(text).width + 2;
    const whiskers = rows.map((row) => [across(row.cost) - 1, down(row.high), across(row.cost) + 1, down(row.low)]);
    const steps = front.map(at).flatMap(([x, y], i, all) => (i ? [[all[i - 1][0], all[i - 1][1] - 2, x, all[i - 1][1] + 2], [x - 2, y, x + 2, all[i - 1][1]]] : []));
    const ceiling = ceilings.flatMap(({ lds, text }) => [[0, down(lds) - 2, wide, down(lds) + 2], [6, down(lds), 6 + long(text), down(lds) + 18]]);
    const best = [...new Map([...rows].sort((a, b) => a.lds - b.lds).map((row) => [row.name, row])).values()];
    const strong = (row) => front.includes(row);
    const wanted = best.map((row) => ({ ...row, at: at(row), long: long(row.name), strong: strong(row) })).sort((a, b) => b.strong - a.strong || b.lds - a.lds);
    const placed = window.placeLabels(wanted, rows.map((row) => ({ at: at(row), name: row.name })), [...whiskers, ...steps, ...ceiling], [wide, HEIGHT]);
    // Back from pixels to what the axes are of.
    const value = ([x, y]) => ({ cost: xs[0] * (xs[1] / xs[0]) ** (x / wide), lds: ys[0] + (ys[1] - ys[0]) * (1 - y / HEIGHT) });
    return placed.map((one) => {
      const [text, end] = [value([one.box[0] + 1, (one.box[1] + one.box[3]) / 2]), value(one.end)];
      return { name: one.name, strong: one.strong, led: one.led, cost: text.cost, lds: text.lds, fromCost: one.cost, fromLds: one.lds, toCost: end.cost, toLds: end.lds };
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
    const names = labels(inside.filter((row) => row.lds >= ys[0]), front, ceilingOf(data), xs, ys, wide);
    await draw({
      width: wide, height: HEIGHT, config: filled("config", {}, c),
      layer: [
        { data: { values: ceilingOf(data) }, mark: { type: "rule", strokeDash: [5, 4], color: c.soft }, encoding: { y: y("lds") } },
        { data: { values: ceilingOf(data) }, mark: { type: "text", align: "left", x: 6, dy: 10 }, encoding: { y: y("lds"), text: { field: "text", type: "nominal" } } },
        { data: { values: front }, mark: { type: "line", interpolate: "step-after", color: c.accent, strokeWidth: 2, opacity: 0.6 }, encoding: { x, y: y("lds"), order: { field: "cost", type: "quantitative" } } },
        { data: { values: inside }, mark: { type: "rule", opacity: 0.5, color: c.soft }, encoding: { x, y: y("low"), y2: { field: "high" } } },
        { data: { values: inside }, mark: { type: "point", filled: true, size: 100 }, encoding: { opacity: { condition: { test: unit === "seconds" ? `datum.timed === ${JSON.stringify(usual)}` : "true", value: 1 }, value: 0.3 }, x, y: y("lds"), tooltip, shape: { field: "variant", type: "nominal", title: null, scale: { domain: variants, range: variants.map((variant) => ({ default: "square", selected: "diamond", custom: "triangle-up" })[variant]) } }, color: { field: "variant", type: "nominal", title: null, scale: { domain: variants, range: variants.map((variant) => c[variant] ?? c.ink) } } } },
        { data: { values: names.filter((row) => row.led) }, mark: { type: "rule", color: c.soft, strokeWidth: 0.8 }, encoding: { x: { ...x, field: "fromCost" }, x2: { field: "toCost" }, y: y("fromLds"), y2: { field: "toLds" } } },
        { data: { values: names }, mark: { type: "text", align: "left" }, encoding: { x, y: y("lds"), text: { field: "name", type: "nominal" }, color: { condition: { test: "datum.strong", value: c.ink }, value: c.soft } } },
      ],
    });
  };

  const reading = document.getElementById("reading");
  const tasks = form.dataset.tasks.split(" ");
  const read = () => {
    const wanted = state();
    options(task, tasks.map((name) => [name, name]), wanted.get("task"));
    cost.value = wanted.get("cost") === "bytes" ? "bytes" : "seconds";
    render();
  };
  form.addEventListener("change", render);
  form.addEventListener("submit", (event) => event.preventDefault());
  redrawWith(render);
  addEventListener("hashchange", read);
  read();
})();
