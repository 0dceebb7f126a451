"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Tables: rows without a number stay last in either direction; equal rows keep their order.
  function compare(a, b, kind, sign) {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (kind === "number" ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
  }

  function sort(heading) {
    const now = heading.getAttribute("aria-sort");
    const best = heading.dataset.first || "ascending";
    const direction = now === "none" ? best : now === "ascending" ? "descending" : "ascending";
    const table = heading.closest("table");
    all("th[aria-sort]", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", direction);
    const value = (row) => row.cells[heading.cellIndex].dataset.value;
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compare(value(a), value(b), heading.dataset.kind, sign));
    table.tBodies[0].append(...rows);
  }

  all(".sortable th[aria-sort] button").forEach((button) =>
    button.addEventListener("click", () => sort(button.closest("th"))),
  );

  // A hint wherever a table is wider than its box.
  const hints = new Map(all("[data-hint]").map((hint) => [document.getElementById(hint.dataset.hint), hint]));
  const watcher = new ResizeObserver((entries) => {
    for (const { target } of entries) hints.get(target).hidden = target.scrollWidth <= target.clientWidth;
  });
  hints.forEach((_, box) => watcher.observe(box));

  // A link into a folded part unfolds it.
  function reveal() {
    const target = document.getElementById(location.hash.slice(1));
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    if (target) target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  reveal();

  // Paper shows everything.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = all("details:not([open])");
    unfolded.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => unfolded.forEach((details) => (details.open = false)));

  // Where the reader is.
  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries)
        links.get(target.id).setAttribute("aria-current", isIntersecting ? "location" : "false");
    },
    { rootMargin: "-10% 0px -80% 0px" },
  );
  links.forEach((_, id) => seen.observe(document.getElementById(id)));

  all("[data-copy]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const text = document.getElementById(button.dataset.copy);
      getSelection().selectAllChildren(text);
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
    });
  });
})();
