"use strict";
// Visible columns and rows of a table, as text to download. Numbers are exact in CSV and JSON, rounded in LaTeX.
window.tableExport = (() => {
  const clean = (text) => text.replace(/\s+/g, " ").trim();
  const missing = (cell) => ["9e99", "-9e99", ""].includes(cell.dataset.order);
  const shownText = (cell) => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll(".note, .badge").forEach((part) => cell.tagName === "TH" && part.remove());
    return clean(copy.textContent);
  };

  const value = (cell) => {
    if (missing(cell)) return null;
    const raw = cell.dataset.order;
    return cell.classList.contains("number") && raw !== "" && Number.isFinite(Number(raw)) ? Number(raw) : raw;
  };

  const csv = (columns, rows) => {
    const quote = (item) => {
      let text = item === null ? "" : String(item);
      if (typeof item === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // no formula in a spreadsheet
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [columns.map((column) => column.key), ...rows.map((row) => row.map(value))].map((line) => line.map(quote).join(",")).join("\n") + "\n";
  };

  const json = (columns, rows) =>
    JSON.stringify(rows.map((row) => Object.fromEntries(row.map((cell, i) => [columns[i].key, value(cell)]))), null, 2) + "\n";

  const special = { "\\": "\\textbackslash{}", "\u00a0": "~", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "−": "$-$", λ: "$\\lambda$", ξ: "$\\xi$", "—": "--" };
  const escapeTex = (text) => text.replace(/[\\~^−λξ—\u00a0]|[&%$#_{}]/g, (c) => special[c] ?? `\\${c}`);
  const tex = (columns, rows) => {
    // Bold are the numbers that share rank 1.
    const rank = columns.findIndex((column) => column.key === "rank");
    const body = (cell, i, row) => {
      if (cell.tagName === "TH") return escapeTex(shownText(cell));
      const copy = cell.cloneNode(true);
      copy.querySelectorAll(".note").forEach((part) => part.remove());
      const text = escapeTex(clean(copy.textContent));
      return cell.classList.contains("best") && row[rank]?.dataset.order === "1" ? `\\textbf{${text}}` : text;
    };
    const layout = columns.map((column) => (column.numeric ? "r" : "l")).join("");
    const lines = rows.map((row) => `${row.map(body).join(" & ")} \\\\`);
    return [`% ${location.href}`, `\\begin{tabular}{${layout}}`, "\\toprule", `${columns.map((c) => escapeTex(c.title)).join(" & ")} \\\\`, "\\midrule", ...lines, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  };

  const bib = (table, names) => {
    const source = document.getElementById(`${table.id}-bibliography`);
    const entries = source ? JSON.parse(source.textContent) : {};
    return [...new Set(names.filter((name) => name in entries).map((name) => entries[name].trim()))].join("\n\n") + "\n";
  };

  const download = (name, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  return { csv, json, tex, bib, download };
})();
