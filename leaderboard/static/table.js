"use strict";
// Sorting, search, filters, columns and exports of every table with tools; what was chosen is in the link.
(() => {
  const { jQuery } = window.bundledTables;
  const PAGE = 100;
  jQuery.fn.dataTable.ext.errMode = "throw";

  const state = new URLSearchParams(location.hash.slice(1));
  const remember = (key, text) => {
    if (text) state.set(key, text);
    else state.delete(key);
    const hash = state.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  };

  const enliven = (tools) => {
    const element = document.getElementById(tools.dataset.for);
    const prefix = element.id === "board" ? "" : `${element.id}.`;
    const headings = [...element.tHead.rows[0].cells];
    const columns = headings.map((cell) => ({ key: cell.dataset.key, title: cell.textContent.trim(), numeric: cell.classList.contains("number") }));
    const initial = headings.map((cell) => !cell.classList.contains("hidden-first"));
    const chosen = state.get(`${prefix}columns`)?.split(",");
    const visible = chosen ? columns.map((column, i) => i === 0 || chosen.includes(column.key)) : initial;
    const [sortKey, direction] = (state.get(`${prefix}sort`) ?? "").split(".");
    const sortIndex = columns.findIndex((column) => column.key === sortKey);
    const many = element.tBodies[0].rows.length > PAGE;

    const table = jQuery(element).DataTable({
      paging: many,
      pageLength: PAGE,
      lengthChange: false,
      info: false,
      autoWidth: false,
      order: sortIndex < 0 ? [] : [[sortIndex, direction === "desc" ? "desc" : "asc"]],
      layout: { topStart: null, topEnd: null, bottomStart: many ? "paging" : null, bottomEnd: null },
      columnDefs: [
        { targets: "best-first", orderSequence: ["desc", "asc"] },
        { targets: "_all", orderSequence: ["asc", "desc"] },
        // Types are given, because guessing them reads every cell.
        ...["num", "string"].map((type) => ({ type, targets: columns.flatMap((column, i) => (column.numeric === (type === "num") ? [i] : [])) })),
        { targets: visible.flatMap((shown, i) => (shown ? [] : [i])), visible: false },
      ],
    });
    element.classList.add("ready");

    const search = tools.querySelector("input[type=search]");
    const select = tools.querySelector("select");
    const output = tools.querySelector("output");
    const rows = table.rows().nodes().toArray();
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const total = rows.filter((row) => !row.classList.contains("fixed"));

    const matches = (row) => (!select?.value || row.dataset.family === select.value) && texts.get(row).includes(search.value.trim().toLowerCase());
    const count = () => {
      const n = total.filter(matches).length;
      const noun = total.length === 1 ? element.dataset.noun.replace(/s$/, "") : element.dataset.noun;
      const others = rows.length - total.length; // they stay in view
      output.textContent = (n === total.length ? `${n} ${noun}` : `${n} of ${total.length} ${noun}`) + (others ? ` and ${others} for comparison` : "");
    };
    const show = () => {
      // Controls stay in view whatever is searched for.
      table.search.fixed("rows", (text, data, index) => {
        const row = table.row(index).node();
        return row.classList.contains("fixed") || matches(row);
      });
      table.draw();
      count();
    };

    search.value = state.get(`${prefix}search`) ?? "";
    search.addEventListener("input", () => {
      remember(`${prefix}search`, search.value.trim());
      show();
    });
    if (select) {
      const family = state.get(`${prefix}filter`);
      if ([...select.options].some((option) => option.value === family)) select.value = family;
      select.addEventListener("change", () => {
        remember(`${prefix}filter`, select.value);
        show();
      });
    }
    table.on("order", () => {
      const [first] = table.order();
      remember(`${prefix}sort`, first?.[1] ? `${columns[first[0]].key}.${first[1]}` : "");
    });

    const list = tools.querySelector(".columns fieldset");
    columns.slice(1).forEach((column, i) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = visible[i + 1];
      box.addEventListener("change", () => {
        table.column(i + 1).visible(box.checked);
        const now = columns.filter((_, k) => k > 0 && table.column(k).visible()).map((c) => c.key);
        const same = columns.every((_, k) => k === 0 || table.column(k).visible() === initial[k]);
        remember(`${prefix}columns`, same ? "" : now.join(",") || "none");
      });
      label.append(box, column.title);
      list.append(label);
    });

    tools.querySelector(".export").addEventListener("click", (event) => {
      const format = event.target.dataset.format;
      if (!format) return;
      const shown = columns.map((_, i) => i).filter((i) => table.column(i).visible());
      const order = table.rows({ search: "applied", order: "applied" }).nodes().toArray();
      const cells = order.map((row) => shown.map((i) => table.cell(row, i).node()));
      const picked = shown.map((i) => columns[i]);
      const exported = window.tableExport;
      const text = format === "bib" ? exported.bib(element, order.map((row) => table.cell(row, 0).node().dataset.order)) : exported[format](picked, cells);
      const page = location.pathname.split("/").pop().replace(/\.html$/, "");
      exported.download(`attriboard-${page}-${element.id}.${format}`, text);
    });

    tools.querySelectorAll(".menu").forEach((menu) => {
      document.addEventListener("click", (event) => menu.contains(event.target) || menu.removeAttribute("open"));
      menu.addEventListener("keydown", (event) => {
        if (event.key !== "Escape") return;
        menu.removeAttribute("open");
        menu.querySelector("summary").focus();
      });
    });
    if (search.value || select?.value) show();
    else count();
    tools.classList.add("ready");
  };

  document.querySelectorAll(".tools").forEach(enliven);
  performance.mark("table-ready");
})();
