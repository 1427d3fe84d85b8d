"use strict";
// LDS against cost, with the line of what is best for its cost.
(() => {
  const { load, colours, config, draw, width, options, state, remember, fixed, fillTable, redrawWith } = window.charts;
  const form = document.getElementById("controls");
  if (!form) return;
  const task = document.getElementById("task");
  const cost = document.getElementById("cost");
  const LABELS = 24; // names in the chart at most; hovering tells the others

  const rowsOf = (data) =>
    Object.entries(data.methods)
      .flatMap(([name, method]) => method.costs.filter((run) => run.variant !== "oracle").map((run) => ({ ...run, name, family: method.control ? "control" : method.family || "other" })))
      .map((row) => ({ ...row, cost: cost.value === "seconds" ? Math.max(row.seconds, 0.001) : row.bytes / 1e6 }))
      .filter((row) => row.cost > 0)
      .sort((a, b) => a.cost - b.cost || b.lds - a.lds);

  const frontier = (rows) => {
    let best = -Infinity;
    return rows.filter((row) => row.lds > best && ((best = row.lds), true));
  };

  const render = async () => {
    const data = await load(task.value);
    remember({ task: task.value, cost: cost.value === "seconds" ? "" : cost.value });
    const rows = rowsOf(data);
    const front = frontier(rows);
    const c = colours();
    const unit = cost.value === "seconds" ? "seconds" : "MB";
    const x = { field: "cost", type: "quantitative", scale: { type: "log", nice: true }, title: unit === "seconds" ? "seconds (log)" : "peak memory, MB (log)", axis: { grid: false, labelOverlap: true, format: "~g" } };
    const y = (field) => ({ field, type: "quantitative", title: "LDS", scale: { zero: false } });
    const tooltip = [{ field: "name", type: "nominal", title: "attributor" }, { field: "variant", type: "nominal", title: "hyperparameters" }, { field: "lds", type: "quantitative", title: "LDS", format: ".4f" }, { field: "cost", type: "quantitative", title: unit, format: ".3~g" }];
    const ceiling = data.ceiling === null ? [] : [{ data: { values: [{ lds: data.ceiling }] }, mark: { type: "rule", strokeDash: [5, 4], color: c.soft }, encoding: { y: y("lds") } }];
    reading.textContent = rows.length ? `Best for their ${unit}: ${front.map((row) => `${row.name} (${row.variant}, ${fixed(row.lds)})`).join(", ")}.` : "No measured record on this task yet.";
    fillTable(["attributor", "hyperparameters", unit, "LDS", "95 % interval", "best for its cost", "record"], rows.map((row) => [row.name, row.variant, Number(row.cost.toPrecision(3)).toString(), fixed(row.lds), `${fixed(row.low)} to ${fixed(row.high)}`, front.includes(row) ? "yes" : "", { text: row.id.slice(0, 10), href: `records/${row.id}.html` }]));
    const variants = ["default", "selected", "custom"].filter((variant) => rows.some((row) => row.variant === variant));
    await draw({
      width: width(), height: 400, config: config(c),
      layer: [
        ...ceiling,
        { data: { values: front }, mark: { type: "line", interpolate: "step-after", color: c.accent, strokeWidth: 2, opacity: 0.6 }, encoding: { x, y: y("lds"), order: { field: "cost", type: "quantitative" } } },
        { data: { values: rows }, mark: { type: "rule", opacity: 0.5, color: c.soft }, encoding: { x, y: y("low"), y2: { field: "high" } } },
        { data: { values: rows }, mark: { type: "point", filled: true, size: 100, opacity: 1 }, encoding: { x, y: y("lds"), tooltip, shape: { field: "variant", type: "nominal", title: null, scale: { domain: variants, range: variants.map((variant) => ({ default: "square", selected: "diamond", custom: "triangle-up" })[variant]) } }, color: { field: "variant", type: "nominal", title: null, scale: { domain: variants, range: variants.map((variant) => c[variant] ?? c.ink) } } } },
        { data: { values: rows.filter((row) => front.includes(row)).slice(0, LABELS) }, mark: { type: "text", align: "right", dx: -9, dy: -9, color: c.ink }, encoding: { x, y: y("lds"), text: { field: "name", type: "nominal" } } },
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
