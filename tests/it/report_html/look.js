// What is wrong with how the page stands on this screen. Run from outside: the page itself holds no script.
(() => {
  const wrong = [];
  for (const one of document.querySelectorAll("details")) one.open = true;
  const root = document.documentElement;
  const told = (e) => `<${e.tagName.toLowerCase()} class="${e.getAttribute("class") ?? ""}"> ${e.textContent.trim().slice(0, 40)}`;
  if (root.scrollWidth > root.clientWidth) {
    wrong.push(`the page is ${root.scrollWidth} wide on a screen of ${root.clientWidth}`);
    for (const e of document.querySelectorAll("body *")) {
      if (!e.closest(".scroll") && e.getBoundingClientRect().right > root.clientWidth + 0.5) wrong.push(`beyond the edge: ${told(e)}`);
    }
  }
  for (const image of document.images) {
    if (!image.complete || image.naturalWidth === 0) wrong.push(`an image is missing: ${image.src.slice(0, 80)}`);
  }
  const plots = document.querySelectorAll("svg.plot");
  for (const plot of plots) {
    const frame = plot.getBoundingClientRect();
    if (frame.width < 100 || frame.height < 20) wrong.push(`a chart has no size: ${plot.textContent.slice(0, 40)}`);
    const texts = [...plot.querySelectorAll("text")].map((e) => [e, e.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
    for (const [text, box] of texts) {
      if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        wrong.push(`cut off in a chart: ${told(text)}`);
    }
    texts.forEach(([a, p], i) => {
      for (const [b, q] of texts.slice(i + 1)) {
        const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
        const down = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
        if (across > 1 && down > 3) wrong.push(`texts over each other in a chart: ${told(a)} and ${told(b)}`);
      }
    });
  }
  const tables = document.querySelectorAll("table");
  for (const table of tables) {
    if (!table.caption) wrong.push("a table without a caption");
    for (const row of table.rows) {
      if (!row.cells[0].matches("th[scope]")) wrong.push(`a row without a title: ${told(row)}`);
    }
  }
  const cells = [...document.querySelectorAll("[data-chart]")].flatMap((e) => {
    const { chart, series, x, field } = e.dataset;
    const value = { chart, series, x, field: "y", text: e.firstElementChild.textContent };
    if (field !== "interval") return [value];
    const [low, high] = e.lastElementChild.textContent.slice(1, -1).split("; ");
    return [value, { ...value, field: "low", text: low }, { ...value, field: "high", text: high }];
  });
  for (const one of document.querySelectorAll("details")) one.open = false;
  return { wrong, plots: plots.length, tables: tables.length, cells, scripts: document.scripts.length };
})()
