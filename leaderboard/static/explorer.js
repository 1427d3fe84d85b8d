"use strict";
// Curves over one hyperparameter with ξ̄ below, surfaces over two. Positions on the axes come with the data.
(() => {
  const { load, colors, filled, draw, width, options, state, remember, fixed, shown, ceilingOf, fillTable, redrawWith } = window.charts;
  const form = document.getElementById("controls");
  if (!form) return;
  const pick = Object.fromEntries(["task", "attributor", "x", "y"].map((id) => [id, document.getElementById(id)]));
  const fixedBox = document.getElementById("fixed");
  const reading = document.getElementById("reading");
  let data;
  let held = {}; // hyperparameter → index of its value, for those that are not drawn

  const method = () => data.methods[pick.attributor.value];
  const written = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value));
  // Shifted by 1000, for Vega writes a minus sign of its own into the key of a negative place.
  const labels = (axis) => `(${JSON.stringify(Object.fromEntries(axis.ticks.map(([at, text]) => [(at + 1000).toFixed(4), text])))})[format(datum.value + 1000, '.4f')]`;

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

  const SIZES = { default: 140, selected: 120, oracle: 420 };
  const marked = (rows) => rows.filter((row) => row.lds !== undefined).flatMap((row) => row.marks.map((mark) => ({ ...row, mark, size: SIZES[mark] })));

  // Where ξ̄ does not cross one half on the grid of λ: what the pick is then, in the empty half of its panel.
  const oneSided = (rows) => {
    const known = rows.map((row) => row.xi).filter((value) => value !== undefined);
    const gap = width() < 320 ? "\n" : " ";
    if (known.every((xi) => xi > 0.5)) return [{ xi: 0.35, text: `ξ̄ is above ½ everywhere:${gap}smallest λ` }];
    return known.every((xi) => xi < 0.5) ? [{ xi: 0.85, text: `ξ̄ is below ½ everywhere:${gap}largest λ` }] : [];
  };

  const curve = (rows, c) => {
    const axis = method().axes[pick.x.value];
    const [first, last] = [axis.at[0], axis.at[axis.at.length - 1]];
    const margin = 0.03 * (last - first || 1);
    const title = pick.x.value + (axis.log ? " (log)" : "");
    const known = rows.some((row) => row.xi !== undefined);
    const picked = marked(rows).find((row) => row.mark === "selected");
    const early = picked && picked.at < (first + last) / 2; // texts keep away from the line of the pick
    return filled("curve", {
      far_text: early ? "$text_right" : "$text_left", one_sided: picked && pick.x.value === "regularization" ? oneSided(rows) : [],
      panels: known ? ["$lds_panel", "$xi_panel"] : ["$lds_panel"], upper_title: known ? null : title, title, name: pick.x.value,
      points: rows, marks: marked(rows), drawn: Object.keys(SIZES), legend: "datum.label", ceiling: ceilingOf(data),
      domain: [first - margin, last + margin], places: axis.ticks.map(([at]) => Number(at.toFixed(4))), labels: labels(axis),
      width: width(), height: 300, xi_height: 110, dot: 46,
    }, c);
  };

  const surface = (rows, c) => {
    const short = (name) => `(${JSON.stringify(Object.fromEntries(method().axes[name].values.map((value) => [written(value), shown(value)])))})[datum.label]`;
    const order = (name) => method().axes[name].values.map(written);
    const levels = rows.map((row) => row.lds).filter((value) => value !== undefined);
    const narrow = width() < 450; // no room for the legend beside the surface
    const middle = (Math.min(...levels) + Math.max(...levels)) / 2;
    const cells = rows.map((row) => ({ ...row, bright: row.lds > middle }));
    const run = new Set(rows.map((row) => `${row.value} ${row.second}`));
    const absent = order(pick.x.value).flatMap((value) => order(pick.y.value).filter((second) => !run.has(`${value} ${second}`)).map((second) => ({ value, second, state: "not run" })));
    return filled("surface", {
      points: cells, absent, absent_legend: absent.length ? "$not_run" : null, marks: marked(cells), kinds: Object.keys(SIZES), shapes: ["square", "diamond", "circle"], mark_area: 190,
      title: pick.x.value, columns_order: order(pick.x.value), column_labels: short(pick.x.value), angle: 0,
      second_title: pick.y.value, rows_order: order(pick.y.value).reverse(), row_labels: short(pick.y.value),
      width: narrow ? width() : width() - 70, bar_side: narrow ? "bottom" : "right", height: Math.max(280, 42 * new Set(rows.map((row) => row.second)).size), gradient: 200,
    }, c);
  };

  const render = async () => {
    const m = method();
    const chart = document.getElementById("chart");
    const link = { task: data.task, attributor: pick.attributor.value };
    if (!m || !m.names.length || m.failed) {
      chart.replaceChildren();
      chart.dataset.ready = "true";
      reading.textContent = m ? m.failed || "This attributor was run at one configuration only: there is no curve yet." : "No record on this task yet.";
      fillTable([], []);
      remember(link);
      return;
    }
    const away = Object.fromEntries(m.names.map((n, i) => [n, i]).filter(([n, i]) => held[n] !== undefined && held[n] !== m.home[i] && n !== pick.x.value && n !== pick.y.value).map(([n]) => [`at.${n}`, written(m.axes[n].values[held[n]])]));
    remember({ ...link, x: pick.x.value, y: pick.y.value, ...away });
    const rows = points();
    const c = colors();
    const failures = rows.filter((row) => row.lds === undefined).length;
    const best = rows.filter((row) => row.lds !== undefined).sort((a, b) => b.lds - a.lds)[0];
    const of = (mark) => rows.find((row) => row.marks.includes(mark) && row.lds !== undefined);
    const place = (row) => `${row.label}${row.second === null ? "" : `, ${row.secondLabel}`}`;
    reading.textContent = [
      `${rows.length} configuration${rows.length === 1 ? "" : "s"}${failures ? `, ${failures} failed` : ""}`,
      ...["default", "selected", "oracle"].filter(of).map((mark) => `${mark} ${fixed(of(mark).lds)} at ${place(of(mark))}`),
      best ? `highest ${fixed(best.lds)} at ${place(best)}` : "",
    ].filter(Boolean).join("; ") + ".";
    chart.setAttribute("aria-label", `LDS of ${pick.attributor.value} on ${data.task} over ${[pick.x.value, pick.y.value].filter(Boolean).join(" and ")}`);
    const heads = [pick.x.value, ...(pick.y.value ? [pick.y.value] : []), "LDS", "95 % interval", "ξ̄", "is", "record"];
    fillTable(heads, rows.map((row) => [
      row.label, ...(pick.y.value ? [row.secondLabel] : []), row.lds === undefined ? row.reason : fixed(row.lds),
      row.lds === undefined ? "—" : `${fixed(row.low)} to ${fixed(row.high)}`, fixed(row.xi), row.marks.join(", "), { text: row.id.slice(0, 10), href: `records/${row.id}.html` },
    ]));
    await draw(pick.y.value ? surface(rows, c) : curve(rows, c));
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
  addEventListener("hashchange", start);
  start();
})();
