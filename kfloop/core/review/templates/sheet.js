"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const NAME_KEY = "kfloop-review-name";
  const $ = (id) => document.getElementById(id);
  const cards = Array.from(document.querySelectorAll("article"));
  let name = "";
  let here = 0; // index of the shown card; cards.length is the end
  let memory = { people: {}, saved: {} }; // what is kept when the browser refuses to keep anything

  function problem(text) {
    $("problem").textContent = text;
    $("problem").hidden = false;
  }

  // Everything is read anew before each change, so that a second tab with the same sheet takes nothing away.
  function load() {
    let text = null;
    try {
      text = localStorage.getItem(facts.key);
      if (text !== null) memory = JSON.parse(text);
    } catch (error) {
      if (error instanceof SyntaxError) {
        localStorage.setItem(`${facts.key}:damaged`, text);
        localStorage.removeItem(facts.key);
        problem("The answers kept in this browser were damaged and put aside. Answers given from now on are kept.");
      }
    }
    return memory;
  }

  function store() {
    try {
      localStorage.setItem(facts.key, JSON.stringify(memory));
      return true;
    } catch {
      problem("This browser does not keep answers: save them to a file before you close this page.");
      return false;
    }
  }

  function mine() {
    // No prototype: a name or a hash can be any text.
    return Object.assign(Object.create(null), load().people[name]);
  }

  function put(index, change) {
    const answers = mine();
    const content = facts.items[index].content;
    if (change === null) delete answers[content];
    else answers[content] = { ...answers[content], ...change, at: new Date().toISOString() };
    memory.people[name] = { ...answers };
    memory.saved[name] = false;
    store();
  }

  function spoken(answer) {
    if (answer === facts.unusable) return "unusable";
    if (answer === facts.unsure) return "unsure";
    return Array.isArray(answer) ? answer.join(", ") || "none of the classes" : String(answer);
  }

  function answered(answers) {
    return facts.items.filter((item) => answers[item.content]?.answer !== undefined).length;
  }

  function paint() {
    const answers = mine();
    const done = answered(answers);
    $("done").textContent = done;
    $("progress").value = done;
    $("save").disabled = $("save-end").disabled = done === 0;
    $("save").textContent = load().saved[name] ? "Saved" : "Save answers";
    cards.forEach((card, index) => paintCard(card, index, answers[facts.items[index].content]));
    $("end").hidden = !name || here < cards.length;
    $("left").textContent = done === cards.length ? `All ${done} are answered.` : `${cards.length - done} are still open.`;
    $("back").disabled = here === 0;
    $("next").disabled = here === cards.length;
    $("open").disabled = done === cards.length;
    Array.from($("dots").children).forEach((dot, index) => {
      const kept = answers[facts.items[index].content]?.answer !== undefined;
      dot.firstChild.className = (kept ? "answered " : "") + (index === here ? "here" : "");
    });
  }

  function paintCard(card, index, kept) {
    card.hidden = !name || index !== here;
    if (card.hidden) return;
    const answer = kept?.answer;
    card.querySelectorAll("button.choice").forEach((button) => {
      const chosen = answer !== undefined && value(button) === answer;
      button.classList.toggle("chosen", chosen);
      button.setAttribute("aria-pressed", chosen);
    });
    if (Array.isArray(answer)) {
      card.querySelectorAll("[type=checkbox]").forEach((box) => { box.checked = answer.includes(box.value); });
    }
    const number = card.querySelector(".number");
    if (number && typeof answer === "number" && document.activeElement !== number) number.value = answer;
    const pick = card.querySelector(".pick");
    if (pick) pick.value = typeof answer === "string" ? answer : "";
    const note = card.querySelector(".note");
    if (document.activeElement !== note) note.value = kept?.note ?? "";
    card.querySelector(".stands").textContent = answer === undefined
      ? (kept?.note ? "A note alone is not saved: give an answer too." : "")
      : `Your answer: ${spoken(answer)}`;
  }

  function value(button) {
    if (button.dataset.verdict) return facts[button.dataset.verdict];
    return button.dataset.numberAnswer === undefined ? button.dataset.answer : Number(button.dataset.numberAnswer);
  }

  function show(index) {
    cards[here]?.querySelector("audio")?.pause();
    here = Math.max(0, Math.min(index, cards.length));
    paint();
    window.scrollTo(0, 0);
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
  }

  function nextOpen() {
    const answers = mine();
    for (let step = 1; step <= cards.length; step += 1) {
      const index = (here + step) % cards.length;
      if (answers[facts.items[index].content]?.answer === undefined) return index;
    }
    return cards.length;
  }

  function answer(given) {
    put(here, { answer: given });
    show(here + 1);
  }

  function confirm(card) {
    const number = card.querySelector(".number");
    const pick = card.querySelector(".pick");
    if (number) {
      if (number.value.trim() === "" || !Number.isFinite(number.valueAsNumber)) number.focus();
      else answer(number.valueAsNumber);
    } else if (pick) {
      if (pick.value) answer(pick.value);
      else pick.focus();
    } else if (facts.task === "multilabel") {
      answer(Array.from(card.querySelectorAll("[type=checkbox]:checked"), (box) => box.value).sort());
    }
  }

  function lines() {
    const answers = mine();
    return facts.items.filter((item) => answers[item.content]?.answer !== undefined).map((item) => {
      const kept = answers[item.content];
      const line = { content: item.content, id: item.id, answer: kept.answer, by: name, at: kept.at, given: item.given };
      if (kept.note) line.note = kept.note;
      return `${JSON.stringify(line)}\n`;
    });
  }

  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines(), { type: "application/x-ndjson" }));
    link.download = "answers.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    load().saved[name] = true;
    store();
    paint();
  }

  function begin(who) {
    name = who;
    try {
      localStorage.setItem(NAME_KEY, name);
    } catch {
      // told when the first answer is kept
    }
    $("who").hidden = true;
    $("moves").hidden = $("all").hidden = false;
    $("by").replaceChildren(`You answer as ${name}. `, changeName());
    here = cards.length - 1;
    show(nextOpen());
  }

  function changeName() {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Somebody else?";
    button.addEventListener("click", ask);
    return button;
  }

  function ask() {
    name = "";
    $("who").hidden = false;
    $("moves").hidden = $("all").hidden = true;
    $("by").replaceChildren();
    paint();
    $("name").focus();
  }

  function onKey(event) {
    if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target instanceof Element ? event.target : document.body;
    const card = cards[here];
    if (event.key === "Enter" && card && !target.closest("button, summary, select, .note")) {
      event.preventDefault();
      confirm(card);
      return;
    }
    if (event.key === "Escape" && target instanceof HTMLElement) target.blur();
    if (target.closest("input:not([type=checkbox]), select, audio")) return;
    if (event.key === " " && target.closest("button, summary, [type=checkbox]")) return;
    if (event.key === " " || event.key === "ArrowRight") show(here + 1);
    else if (event.key === "ArrowLeft") show(here - 1);
    else if (!card || !press(card, event.key)) return;
    event.preventDefault();
  }

  // What a key does to the shown card; whether it did anything.
  function press(card, key) {
    if (key === "u" || key === "s") {
      answer(key === "u" ? facts.unusable : facts.unsure);
      return true;
    }
    if (key === "p") {
      const audio = card.querySelector("audio");
      if (audio) {
        if (audio.paused) audio.play();
        else audio.pause();
      }
      return audio !== null;
    }
    const mark = Array.from(card.querySelectorAll(".choices kbd")).find((found) => found.textContent === key);
    mark?.closest(".choice").click();
    return mark !== undefined;
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const card = event.target.closest("article");
    if (!button || !card) return;
    if (button.classList.contains("confirm")) confirm(card);
    else if (button.classList.contains("chosen")) { put(here, null); paint(); } // the same again takes it back
    else answer(value(button));
  });
  document.addEventListener("input", (event) => {
    if (!event.target.classList.contains("note")) return;
    put(here, { note: event.target.value.trim() });
    paint();
  });
  document.addEventListener("keydown", onKey);
  window.addEventListener("storage", (event) => { if (event.key === facts.key) paint(); });
  $("who").addEventListener("submit", (event) => {
    event.preventDefault();
    const who = $("name").value.trim();
    if (who) begin(who);
  });
  $("save").addEventListener("click", save);
  $("save-end").addEventListener("click", save);
  $("back").addEventListener("click", () => show(here - 1));
  $("next").addEventListener("click", () => show(here + 1));
  $("open").addEventListener("click", () => show(nextOpen()));
  facts.items.forEach((item, index) => {
    const dot = document.createElement("button");
    dot.type = "button";
    dot.textContent = index + 1;
    dot.addEventListener("click", () => show(index));
    const place = document.createElement("li");
    place.append(dot);
    $("dots").append(place);
  });
  let known = null;
  try {
    known = localStorage.getItem(NAME_KEY);
  } catch {
    // asked for below
  }
  if (known) begin(known);
  else ask();
})();
