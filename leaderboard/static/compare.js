"use strict";
// Two or more methods over all tasks; what was chosen is in the link.
(() => {
  const form = document.getElementById("compare");
  const data = window.comparison;
  if (!form || !data) return;
  const variant = document.getElementById("variant");
  const table = document.getElementById("side");
  const said = document.getElementById("said");
  const { fixed, interval } = window.written;
  const element = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), { textContent: text }, properties);
  let chosen;
  const title = (name) => data.titles[name] ?? name;
  for (const name of data.methods) {
    const label = element("label");
    label.append(element("input", "", { type: "checkbox", value: name }), ` ${title(name)}`);
    document.getElementById("methods").append(label);
  }

  const read = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    const wanted = (state.get("methods") ?? data.methods.slice(0, 3).join(",")).split(",");
    chosen = [...new Set(wanted)].filter((name) => data.methods.includes(name));
    form.querySelectorAll("#methods input").forEach((box) => (box.checked = chosen.includes(box.value)));
    if ([...variant.options].some((option) => option.value === state.get("variant"))) variant.value = state.get("variant");
    render();
  };

  // a − b, whichever way the pair is kept.
  const difference = (task, a, b) => {
    const found = task.differences;
    if (`${a} ${b}` in found) return found[`${a} ${b}`];
    if (!(`${b} ${a}` in found)) return null;
    const [mean, low, high] = found[`${b} ${a}`];
    return [-mean, -high, -low];
  };

  const cell = (task, name, first) => {
    const box = element("td", "", { className: "number" });
    const score = task.scores[name];
    if (!score) {
      box.append("—", element("span", task.missing[name] ?? "not run", { className: "note" }));
      return box;
    }
    box.append(element("a", fixed(score.lds), { href: `records/${score.id}.html` }));
    box.append(element("span", interval(score.low, score.high), { className: "note" }));
    if (score.chosen) box.append(element("span", score.chosen, { className: "note" }));
    const between = name === first ? null : difference(task, name, first);
    if (between) {
      const [mean, low, high] = between;
      const clear = low > 0 || high < 0;
      const sign = mean > 0 ? "+" : "";
      box.append(element("span", `${sign}${fixed(mean)}${clear ? "" : ", not significant"}`, { className: clear ? "note strong" : "note" }));
      box.append(element("span", interval(low, high), { className: "note" }));
    }
    return box;
  };

  const render = () => {
    const names = chosen; // in the order of choice: differences are from the first
    history.replaceState(null, "", `#${new URLSearchParams({ methods: names.join(","), variant: variant.value })}`);
    table.hidden = names.length < 2;
    said.textContent = names.length < 2 ? "Choose two methods or more." : `Below each score: its difference from ${title(names[0])} with the paired 95 % interval, bold where it is significant.`;
    if (names.length < 2) return;
    const heading = element("tr");
    heading.append(element("th", "Task", { scope: "col" }), ...names.map((name) => element("th", title(name), { scope: "col", className: "number" })), element("th", "Ceiling", { scope: "col", className: "number" }));
    table.tHead.replaceChildren(heading);
    const rows = Object.entries(data.tasks).map(([name, task]) => {
      const row = element("tr");
      const head = element("th", "", { scope: "row" });
      const link = element("a", "", { href: `leaderboards/${name}-lds.html` });
      name.split("_").forEach((part, i) => link.append(...(i ? ["_", element("wbr")] : []), part)); // may break after "_"
      head.append(link);
      row.append(head, ...names.map((method) => cell(task[variant.value], method, names[0])), element("td", fixed(task.ceiling), { className: "number" }));
      return row;
    });
    const won = element("tr");
    const against = (name) => {
      const found = Object.values(data.tasks).map((task) => difference(task[variant.value], name, names[0])).filter(Boolean);
      if (!found.length) return "no common task";
      return `better on ${found.filter((d) => d[1] > 0).length}, worse on ${found.filter((d) => d[2] < 0).length} of ${found.length}`;
    };
    won.append(element("th", `Against ${title(names[0])}`, { scope: "row" }), ...names.map((name, i) => element("td", i ? against(name) : "—", { className: "number words" })), element("td"));
    table.tBodies[0].replaceChildren(...rows, won);
  };
  form.addEventListener("change", ({ target }) => {
    if (target.type === "checkbox") chosen = target.checked ? [...chosen, target.value] : chosen.filter((name) => name !== target.value);
    render();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", read);
  read();
})();
