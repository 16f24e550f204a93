"use strict";
// Shows one page at a time beside its text. Everything on screen was written by the report as elements; the script
// only clones, hides and marks them, and never parses text as markup.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  document.documentElement.classList.add("js");

  const cards = all(".card");
  const filters = all("[data-filter]");
  const find = one("#find");
  const status = one("#shown");
  const failures = one("#failures");
  const stage = one(".stage");
  const reading = one(".reading");
  const heading = one("#page-name");
  const nothing = one("#nothing");
  let filter = "all";
  let current = null;

  const visible = () => cards.filter((card) => !card.hidden);

  function mark(index, scroll) {
    for (const element of all(".on", stage).concat(all(".on", reading))) element.classList.remove("on");
    if (index === null) return;
    const box = one(`[data-region="${index}"]`, stage);
    const line = one(`[data-region="${index}"]`, reading);
    if (box) box.classList.add("on");
    if (line) {
      line.classList.add("on");
      if (scroll) line.scrollIntoView({ block: "nearest" });
    }
  }

  function show(card) {
    if (current) one(".thumb", current).removeAttribute("aria-current");
    current = card;
    stage.replaceChildren();
    reading.replaceChildren();
    heading.textContent = "";
    if (!card) return;
    const thumb = one(".thumb", card);
    thumb.setAttribute("aria-current", "true");
    stage.append(one(".frame", card).cloneNode(true));
    reading.append(one(".record", card).cloneNode(true));
    heading.textContent = card.dataset.name;
    heading.title = card.dataset.name;
  }

  function step(offset) {
    const open = visible();
    const next = open[open.indexOf(current) + offset];
    if (!next) return;
    show(next);
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function apply() {
    const wanted = find.value.trim().toLocaleLowerCase();
    for (const card of cards) {
      const kept = filter === "all" || card.dataset.state === filter;
      const words = () => `${card.dataset.name} ${one(".texts", card)?.textContent ?? ""}`.toLocaleLowerCase();
      card.hidden = !kept || (wanted !== "" && !words().includes(wanted));
    }
    for (const button of filters) button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
    const open = visible();
    const pages = filter !== "failed";
    one(".desk").hidden = !pages;
    if (failures) failures.hidden = filter !== "all" && pages;
    nothing.hidden = open.length > 0 || !pages;
    status.textContent = pages ? `${open.length} of ${cards.length} pages shown` : "";
    if (!open.includes(current)) show(open[0] ?? null);
  }

  for (const card of cards) one(".thumb", card).addEventListener("click", () => show(card));
  for (const button of filters) {
    button.addEventListener("click", () => {
      filter = button.dataset.filter;
      apply();
    });
  }
  find.addEventListener("input", apply);
  one("#before").addEventListener("click", () => step(-1));
  one("#after").addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    if (event.target === find || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  const region = (event) => event.target.closest?.("[data-region]")?.dataset.region ?? null;
  for (const pane of [stage, reading]) {
    const scroll = pane === stage;
    pane.addEventListener("pointerover", (event) => mark(region(event), scroll));
    pane.addEventListener("click", (event) => mark(region(event), scroll));
    pane.addEventListener("focusin", (event) => mark(region(event), scroll));
  }
  for (const button of filters) {
    const count = cards.filter((card) => card.dataset.state === button.dataset.filter).length;
    const place = one("span", button);
    if (place && button.dataset.filter !== "failed") place.textContent = String(count);
  }
  apply();
})();
