"use strict";
(() => {
  const { jQuery } = window.bundledTables;
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  jQuery.fn.dataTable.ext.errMode = "throw";
  const table = jQuery("#board").DataTable({
    paging: false,
    info: false,
    autoWidth: false,
    order: [],
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    columnDefs: [{ targets: "best-first", orderSequence: ["desc", "asc"] }],
  });
  const rows = table.rows().nodes().toArray();
  const matches = (row) => row.cells[1].textContent.toLowerCase().includes(search.value.trim().toLowerCase());
  const show = () => {
    // Controls stay in view whatever is searched for.
    table.search.fixed("methods", (text, data, index) => {
      const row = table.row(index).node();
      return row.classList.contains("control") || matches(row);
    });
    table.draw();
    const methods = rows.filter((row) => !row.classList.contains("control"));
    count.textContent = `${methods.filter(matches).length} of ${methods.length} methods, and the controls`;
  };
  search.addEventListener("input", show);
  search.closest(".tools").classList.add("ready");
  show();
})();
