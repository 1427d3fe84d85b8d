"use strict";
// Curves over one hyperparameter with ξ̄ below, surfaces over two. Positions on the axes come with the data.
(() => {
  const { load, colours, config, draw, width, options, state, remember, fixed, shown, ceilingOf, fillTable, redrawWith } = window.charts;
  const form = document.getElementById("controls");
  if (!form) return;
  const pick = Object.fromEntries(["task", "attributor", "x", "y"].map((id) => [id, document.getElementById(id)]));
  const fixedBox = document.getElementById("fixed");
  const reading = document.getElementById("reading");
  let data;
  let held = {}; // hyperparameter → index of its value, for those that are not drawn

  const method = () => data.methods[pick.attributor.value];
  const written = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value));
  const labels = (axis) => `{${axis.ticks.map(([at, text]) => `'${(at + 1000).toFixed(4)}': '${text.replace(/[\\']/g, "")}'`).join(",")}}[format(datum.value + 1000, '.4f')]`; // no minus sign among the keys: Vega has its own

  const axisOf = (name, c, extra = {}) => {
    const axis = method().axes[name];
    const places = axis.at;
    const margin = 0.03 * (places[places.length - 1] - places[0] || 1);
    return {
      field: "at", type: "quantitative", title: name + (axis.log ? " (log)" : ""),
      scale: { domain: [places[0] - margin, places[places.length - 1] + margin], nice: false, zero: false },
      axis: { values: axis.ticks.map(([at]) => Number(at.toFixed(4))), labelExpr: labels(axis), grid: false, labelOverlap: true, labelSeparation: 5, ...extra },
    };
  };

  const points = () => {
    const m = method();
    const drawn = [pick.x.value, pick.y.value].filter(Boolean);
    return m.points
      .filter((point) => m.names.every((name, i) => drawn.includes(name) || point.c[i] === held[name]))
      .map((point) => {
        const i = m.names.indexOf(pick.x.value);
        const j = m.names.indexOf(pick.y.value);
        const axis = m.axes[pick.x.value];
        const second = j < 0 ? null : m.axes[pick.y.value];
        return {
          ...point, at: Number(axis.at[point.c[i]].toFixed(4)), value: written(axis.values[point.c[i]]), label: shown(axis.values[point.c[i]]),
          second: second ? written(second.values[point.c[j]]) : null, secondLabel: second ? shown(second.values[point.c[j]]) : null, marks: point.marks ?? [],
        };
      })
      .sort((a, b) => a.at - b.at);
  };

  const tooltip = (name) => [
    { field: "label", type: "nominal", title: name }, { field: "lds", type: "quantitative", title: "LDS", format: ".4f" },
    { field: "low", type: "quantitative", title: "from", format: ".4f" }, { field: "high", type: "quantitative", title: "to", format: ".4f" },
    { field: "xi", type: "quantitative", title: "ξ̄", format: ".4f" },
  ];

  const curve = (rows, c) => {
    const name = pick.x.value;
    const x = axisOf(name, c);
    const SIZES = { default: 140, selected: 110, oracle: 420 };
    const scored = rows.filter((row) => row.lds !== undefined);
    const marked = scored.flatMap((row) => row.marks.map((mark) => ({ ...row, mark, size: SIZES[mark] })));
    const failed = rows.filter((row) => row.lds === undefined).map((row) => ({ ...row, level: 0 }));
    const y = (field) => ({ field, type: "quantitative", title: "LDS", scale: { zero: false } });
    const known = rows.filter((row) => row.xi !== undefined);
    const chosen = known.filter((row) => row.marks.includes("selected"));
    const guide = () => ({ data: { values: chosen }, mark: { type: "rule", strokeDash: [2, 3], color: c.selected, opacity: 0.7 }, encoding: { x } });
    const upper = {
      width: width(), height: 300,
      layer: [
        { data: { values: [{ lds: 0 }] }, mark: { type: "rule", color: c.soft, opacity: 0.6 }, encoding: { y: y("lds") } },
        ...ceilingOf(data, y("lds"), c),
        guide(),
        { data: { values: scored }, mark: { type: "area", color: c.accent, opacity: 0.17 }, encoding: { x, y: y("low"), y2: { field: "high" } } },
        { data: { values: scored }, mark: { type: "line", color: c.accent, strokeWidth: 2 }, encoding: { x, y: y("lds") } },
        { data: { values: scored }, mark: { type: "point", filled: true, size: 46, color: c.accent, opacity: 1 }, encoding: { x, y: y("lds"), tooltip: tooltip(name) } },
        ...(failed.length ? [{ data: { values: failed }, mark: { type: "point", shape: "cross", angle: 45, size: 90, color: c.bad, filled: true }, encoding: { x, y: y("level"), tooltip: [{ field: "label", type: "nominal", title: name }, { field: "reason", type: "nominal" }] } }] : []),
        {
          data: { values: marked }, mark: { type: "point", strokeWidth: 2.5, filled: true, opacity: 1 },
          encoding: {
            x, y: y("lds"), tooltip: [{ field: "mark", type: "nominal", title: "is" }, ...tooltip(name)],
            shape: { field: "mark", type: "nominal", title: null, scale: { domain: ["default", "selected", "oracle"], range: ["square", "diamond", "circle"] } },
            size: { field: "size", type: "quantitative", scale: null, legend: null },
            stroke: { field: "mark", type: "nominal", title: null, scale: { domain: ["default", "selected", "oracle"], range: [c.default, c.selected, c.oracle] } },
            fill: { field: "mark", type: "nominal", title: null, scale: { domain: ["default", "selected", "oracle"], range: ["transparent", c.selected, "transparent"] } },
          },
        },
      ],
    };
    if (!known.length) return upper;
    const level = (field) => ({ field, type: "quantitative", title: "surrogate ξ̄", scale: { domain: [0, 1] }, axis: { values: [0, 0.5, 1] } });
    const lower = {
      width: width(), height: 110,
      layer: [
        guide(),
        { data: { values: [{ half: 0.5 }] }, mark: { type: "rule", strokeDash: [2, 3], color: c.selected }, encoding: { y: level("half") } },
        { data: { values: known }, mark: { type: "line", color: c.soft, strokeWidth: 2 }, encoding: { x, y: level("xi") } },
        { data: { values: known }, mark: { type: "point", filled: true, color: c.soft, size: 40, opacity: 1 }, encoding: { x, y: level("xi"), tooltip: tooltip(name) } },
        { data: { values: chosen }, mark: { type: "point", shape: "diamond", size: 190, filled: true, color: c.selected, opacity: 1 }, encoding: { x, y: level("xi") } },
      ],
    };
    for (const layer of upper.layer) if (layer.encoding.x) layer.encoding.x = axisOf(name, c, { title: null });
    return { vconcat: [upper, lower], spacing: 18, resolve: { scale: { x: "shared" } } };
  };

  const surface = (rows, c) => {
    const short = (name) => `${JSON.stringify(Object.fromEntries(method().axes[name].values.map((value) => [written(value), shown(value)])))}[datum.label]`;
    const order = (name) => method().axes[name].values.map(written);
    const scored = rows.filter((row) => row.lds !== undefined);
    const x = { field: "value", type: "ordinal", sort: order(pick.x.value), title: pick.x.value, axis: { labelAngle: 0, labelOverlap: "greedy", labelSeparation: 4, labelExpr: short(pick.x.value) } };
    const y = { field: "second", type: "ordinal", sort: order(pick.y.value).reverse(), title: pick.y.value, axis: { labelExpr: short(pick.y.value) } };
    const marked = scored.flatMap((row) => row.marks.map((mark) => ({ ...row, mark })));
    const tips = [{ field: "secondLabel", type: "nominal", title: pick.y.value }, ...tooltip(pick.x.value)];
    return {
      width: width(), height: Math.max(280, 42 * new Set(rows.map((row) => row.second)).size),
      layer: [
        { data: { values: scored }, mark: { type: "rect" }, encoding: { x, y, color: { field: "lds", type: "quantitative", title: "LDS", scale: { scheme: "viridis" }, legend: { gradientLength: 200, titleFontWeight: 500 } }, tooltip: tips } },
        { data: { values: rows.filter((row) => row.lds === undefined) }, mark: { type: "text", text: "×", fontSize: 18, color: c.bad }, encoding: { x, y, tooltip: [{ field: "reason", type: "nominal" }] } },
        {
          data: { values: marked }, mark: { type: "point", size: 190, strokeWidth: 3, filled: false, opacity: 1, stroke: "#fff" },
          encoding: { x, y, tooltip: [{ field: "mark", type: "nominal", title: "is" }, ...tips], shape: { field: "mark", type: "nominal", title: null, scale: { domain: ["default", "selected", "oracle"], range: ["square", "diamond", "circle"] }, legend: { symbolStrokeColor: c.ink } } },
        },
      ],
    };
  };

  const render = async () => {
    const m = method();
    const chart = document.getElementById("chart");
    const link = { task: data.task, attributor: pick.attributor.value };
    if (!m || !m.names.length) {
      chart.replaceChildren();
      chart.dataset.ready = "true";
      reading.textContent = m ? "This attributor was run at one configuration only: there is no curve yet." : "No record on this task yet.";
      fillTable([], []);
      remember(link);
      return;
    }
    const away = Object.fromEntries(m.names.map((n, i) => [n, i]).filter(([n, i]) => held[n] !== undefined && held[n] !== m.home[i] && n !== pick.x.value && n !== pick.y.value).map(([n]) => [`at.${n}`, written(m.axes[n].values[held[n]])]));
    remember({ ...link, x: pick.x.value, y: pick.y.value, ...away });
    const rows = points();
    const c = colours();
    const failures = rows.filter((row) => row.lds === undefined).length;
    const best = rows.filter((row) => row.lds !== undefined).sort((a, b) => b.lds - a.lds)[0];
    const of = (mark) => rows.find((row) => row.marks.includes(mark) && row.lds !== undefined);
    const place = (row) => `${row.label}${row.second === null ? "" : `, ${row.secondLabel}`}`;
    reading.textContent = [
      `${rows.length} configurations${failures ? `, ${failures} failed` : ""}`,
      ...["default", "selected", "oracle"].filter(of).map((mark) => `${mark} ${fixed(of(mark).lds)} at ${place(of(mark))}`),
      best ? `highest ${fixed(best.lds)} at ${place(best)}` : "",
    ].filter(Boolean).join("; ") + ".";
    chart.setAttribute("aria-label", `LDS of ${pick.attributor.value} on ${data.task} over ${[pick.x.value, pick.y.value].filter(Boolean).join(" and ")}`);
    const heads = [pick.x.value, ...(pick.y.value ? [pick.y.value] : []), "LDS", "95 % interval", "ξ̄", "is", "record"];
    fillTable(heads, rows.map((row) => [
      row.label, ...(pick.y.value ? [row.secondLabel] : []), row.lds === undefined ? row.reason : fixed(row.lds),
      row.lds === undefined ? "—" : `${fixed(row.low)} to ${fixed(row.high)}`, fixed(row.xi), row.marks.join(", "), { text: row.id.slice(0, 10), href: `records/${row.id}.html` },
    ]));
    await draw({ ...(pick.y.value ? surface(rows, c) : curve(rows, c)), config: config(c) });
  };

  const chooseFixed = (wanted) => {
    const m = method();
    fixedBox.replaceChildren();
    const others = m.names.filter((name) => name !== pick.x.value && name !== pick.y.value);
    held = {};
    m.names.forEach((name, i) => {
      const axis = m.axes[name];
      const fromLink = axis.values.findIndex((value) => written(value) === wanted.get(`at.${name}`));
      held[name] = fromLink >= 0 ? fromLink : m.home[i] ?? 0;
    });
    for (const name of others) {
      const label = document.createElement("label");
      label.className = "field";
      const select = document.createElement("select");
      options(select, m.axes[name].values.map((value, i) => [String(i), shown(value)]), String(held[name]));
      select.addEventListener("change", () => {
        held[name] = Number(select.value);
        render();
      });
      label.append(`${name} =`, select);
      fixedBox.append(label, " ");
    }
  };

  const chooseAxes = (wanted) => {
    const m = method();
    options(pick.x, m ? m.names.map((name) => [name, name]) : [], wanted.get("x"));
    options(pick.y, [["", "nothing else"], ...(m ? m.names.filter((name) => name !== pick.x.value).map((name) => [name, name]) : [])], wanted.get("y"));
    if (m) chooseFixed(wanted);
    return render();
  };

  const chooseTask = async (wanted) => {
    data = await load(pick.task.value);
    const names = Object.keys(data.methods).sort((a, b) => data.methods[b].points.length - data.methods[a].points.length || a.localeCompare(b));
    options(pick.attributor, names.map((name) => [name, `${name}${data.methods[name].names.length ? "" : " (no sweep)"}`]), wanted.get("attributor"));
    return chooseAxes(wanted);
  };

  const start = async () => {
    const wanted = state();
    const tasks = form.dataset.tasks.split(" ");
    if (tasks.includes(wanted.get("task"))) pick.task.value = wanted.get("task");
    else if (wanted.has("attributor")) {
      for (const name of tasks) {
        if ((await load(name)).methods[wanted.get("attributor")]?.names.length) {
          pick.task.value = name;
          break;
        }
      }
    }
    await chooseTask(wanted);
  };

  const kept = (...names) => new URLSearchParams(names.map((name) => [name, pick[name].value]));
  pick.task.addEventListener("change", () => chooseTask(kept("attributor", "x", "y")));
  pick.attributor.addEventListener("change", () => chooseAxes(kept("x", "y")));
  pick.x.addEventListener("change", () => chooseAxes(kept("x", "y")));
  pick.y.addEventListener("change", () => chooseAxes(kept("x", "y")));
  form.addEventListener("submit", (event) => event.preventDefault());
  redrawWith(() => data && render());
  start();
})();
