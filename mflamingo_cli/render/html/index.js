"use strict";
// Columns sort, rows are found by any word in them.
addEventListener("DOMContentLoaded", () => {
  const body = document.querySelector("tbody"), search = document.getElementById("search"), count = document.getElementById("count");
  const rows = [...body.rows];
  const tell = (shown) => { count.textContent = `${shown === rows.length ? "" : `${shown} of `}${rows.length} · `; };
  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const value = (row, column) => row.cells[column].dataset.value;

  document.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      document.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const compare = (a, b) => (isNaN(a) || isNaN(b) ? order.compare(a, b) : a - b) * (down ? -1 : 1);
      rows.sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        return (x === "") - (y === "") || compare(x, y); // what is unknown comes last, either way
      });
      body.append(...rows);
    });
  });

  search.hidden = false;
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    tell(rows.filter((row) => !row.hidden).length);
  });
  tell(rows.length);
});
