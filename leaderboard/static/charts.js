"use strict";
// What the interactive figures share: loading a task's data, templates, colors of the theme, the link's state.
window.charts = (() => {
  const { fixed } = window.written;
  const tasks = new Map();
  const waiting = new Map();
  window.receiveTask = (data) => {
    tasks.set(data.task, data);
    waiting.get(data.task)?.(data);
  };

  // A script element works from file://, where fetch does not.
  const load = (name) =>
    tasks.has(name)
      ? Promise.resolve(tasks.get(name))
      : new Promise((resolve, reject) => {
          waiting.set(name, resolve);
          const script = document.createElement("script");
          script.src = `data/${encodeURIComponent(name)}.js`;
          script.onerror = () => reject(new Error(`data/${name}.js does not load`));
          document.head.append(script);
        });

  const colors = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    return Object.fromEntries(["ink", "soft", "line", "card", "accent", "default", "selected", "oracle", "bad"].map((name) => [name, read(name)]));
  };

  // A template of plots.js with its values, as `filled` in plots/charts.py: "$name" is the value or the template of that name.
  const filled = (name, values, c) => {
    const known = { ...window.plots, font: getComputedStyle(document.body).fontFamily, heading: "", columns: chart.clientWidth < 560 ? 1 : 3, ...c, ...values };
    const fill = (part) => {
      if (typeof part === "string" && part.startsWith("$")) return fill(known[part.slice(1)]);
      if (Array.isArray(part)) return part.map(fill);
      return part && typeof part === "object" ? Object.fromEntries(Object.entries(part).map(([key, value]) => [key, fill(value)])) : part;
    };
    return fill(`$${name}`);
  };

  const chart = document.getElementById("chart");
  const frame = document.createElement("div");
  frame.setAttribute("aria-hidden", "true");
  let view;

  // Marks are silent for screen readers: the sentence below and the table of numbers say the same in words.
  const draw = async (spec) => {
    if (!frame.isConnected) chart.replaceChildren(frame);
    const schema = "https://vega.github.io/schema/vega-lite/v6.json";
    const result = await window.vegaEmbed(frame, { $schema: schema, ...spec }, { actions: false, renderer: "svg" });
    view = result.view;
    chart.dataset.ready = "true";
  };

  document.querySelectorAll("[data-image]").forEach((button) =>
    button.addEventListener("click", async () => {
      if (!view) return;
      const link = document.createElement("a");
      link.href = await view.toImageURL(button.dataset.image, 2);
      link.download = `attriboard-chart.${button.dataset.image}`;
      link.click();
    }),
  );

  const width = () => Math.max(240, Math.min(1300, chart.clientWidth - 108));

  const options = (select, names, wanted) => {
    select.replaceChildren(...names.map(([value, label]) => new Option(label, value)));
    if (names.some(([value]) => value === wanted)) select.value = wanted;
  };

  // A page that was opened without a choice begins where the overview's figure is.
  const state = () => new URLSearchParams(location.hash.length > 1 ? location.hash.slice(1) : (document.getElementById("controls")?.dataset.first ?? ""));
  const remember = (values) => history.replaceState(null, "", `#${new URLSearchParams(Object.entries(values).filter(([, v]) => v !== "" && v !== undefined))}`);

  // A parameter's value for reading; what identifies it in links has more digits.
  const shown = (value) => {
    if (typeof value !== "number") return String(value);
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? Number(value.toPrecision(3)).toExponential().replace("e+", "e") : String(Number.isInteger(value) ? value : Number(value.toPrecision(3)));
  };

  // The noise ceiling as rows of a template.
  const ceilingOf = (data) => (data.ceiling === null ? [] : [{ lds: data.ceiling, text: `noise ceiling ${fixed(data.ceiling)}` }]);

  const fillTable = (headings, rows) => {
    const cell = (tag, item) => {
      const element = document.createElement(tag);
      if (item?.href) {
        const link = document.createElement("a");
        link.href = item.href;
        link.textContent = item.text;
        element.append(link);
      } else element.textContent = item;
      return element;
    };
    const line = (tag, items) => {
      const row = document.createElement("tr");
      row.append(...items.map((item) => cell(tag, item)));
      return row;
    };
    const table = document.getElementById("values");
    table.tHead.replaceChildren(line("th", headings));
    table.tHead.querySelectorAll("th").forEach((heading) => (heading.scope = "col"));
    table.tBodies[0].replaceChildren(...rows.map((row) => line("td", row)));
  };

  const redrawWith = (render) => {
    let timer;
    const later = () => {
      clearTimeout(timer);
      timer = setTimeout(render, 150);
    };
    addEventListener("resize", later);
    addEventListener("themechange", render);
  };

  return { load, colors, filled, draw, width, options, state, remember, fixed, shown, ceilingOf, fillTable, redrawWith };
})();
