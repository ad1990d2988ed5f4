// The trace viewer: which question is shown, which pass the filters, and links to a view. viewer-response.js comes before
// this in the same script and says how a response looks.

const byId = (name) => document.getElementById(`viewer-${name}`);
const data = JSON.parse(byId("data").textContent);
const { columns, responses, grades } = data;
const LINK = "#viewer?"; // what a link to a view begins with
const OUTCOMES = {
  "": ["any", () => true],
  right: ["right", isRight],
  wrong: ["wrong", (response) => response.outcome === "wrong"],
  no_answer: ["no answer", (response) => response.outcome === "no_answer"],
  cut: ["cut at the limit", (response) => response.end === "length"],
  malformed: ["malformed", (response) => Boolean(response.malformed)],
  forced: ["forced to go on", (response) => Boolean(response.forced)],
  not_scored: ["not scored", (response) => response.outcome === "not_scored"],
};
const CHANGES = {
  "": ["gained, lost or neither", () => true],
  gained: ["gained: only the second is right", (before, after) => !isRight(before) && isRight(after)],
  lost: ["lost: only the first is right", (before, after) => isRight(before) && !isRight(after)],
};
const START = {
  set: 0, question: "", sample: 0, show: data.show, of: data.pair[1], outcome: "",
  from: data.pair[0], to: data.pair[1], change: "", reflects: false, text: "", raw: false,
};
let view = { ...START };
let passing = []; // the questions of the set that pass the filters, each with the samples that do
let pattern = null; // what is searched for

// --- what passes the filters

const inOrder = (numbers) => [...new Set(numbers)].sort((a, b) => a - b);
const samplesOf = (question) => Math.max(...question.r.map((numbers) => numbers.length));
const everySample = (question) => [...Array(samplesOf(question)).keys()];
// A column with one response a question shows it beside every sample of the others.
const responseOf = (question, column, sample) => {
  const numbers = question.r[column];
  return responses[numbers.length === 1 ? numbers[0] : numbers[sample]] || null;
};
const place = () => passing.findIndex((each) => each.question.id === view.question);
const filtered = () => Boolean(view.outcome || view.change || view.reflects || view.text);

// The filters in words.
const filters = () => [
  view.outcome && `${columns[view.of].label} ${OUTCOMES[view.outcome][0]}`,
  view.change && `${view.change} from ${columns[view.from].label} to ${columns[view.to].label}`,
  view.reflects && "with reflections",
  view.text && `“${view.text}”`,
].filter(Boolean);

const passes = (question, sample) => {
  const at = (column) => responseOf(question, column, sample);
  if (view.outcome && !(at(view.of) && OUTCOMES[view.outcome][1](at(view.of)))) return false;
  if (view.change) {
    const pair = [at(view.from), at(view.to)];
    if (pair.some((response) => !response || response.outcome === "not_scored")) return false;
    if (!CHANGES[view.change][1](...pair)) return false;
  }
  const seen = view.show.map(at).filter(Boolean);
  if (view.reflects && !seen.some((response) => response.pieces.some(([kind]) => kind === "r"))) return false;
  return !pattern || seen.some((response) => textOf(response).search(pattern) >= 0);
};

const sift = () => {
  pattern = view.text ? new RegExp(view.text.replace(/[\^$\\.*+?()[\]{}|/]/g, "\\$&"), "giu") : null;
  passing = data.sets[view.set].questions
    .map((question) => ({ question, samples: everySample(question).filter((sample) => passes(question, sample)) }))
    .filter((each) => each.samples.length);
};

// --- what is on the page

const drawPrompts = (question) => {
  const numbers = [...new Set(view.show.map((column) => columns[column].prompt))];
  return numbers.map((number) => {
    const names = view.show.filter((column) => columns[column].prompt === number).map((column) => columns[column].label);
    const to = numbers.length > 1 ? ` to ${names.join(", ")}` : "";
    const box = element("details", "", element("summary", "", `The prompt as it was given${to}`));
    if (!data.prompts[number]) box.append(element("p", "", "The prompts file of the run is gone."));
    for (const [role, parts] of data.prompts[number] || []) {
      box.append(element("p", "viewer-facts", role), element("div", "viewer-text", parts.join(question.text)));
    }
    return box;
  });
};

const drawQuestion = (question) => {
  const text = element("div", "viewer-text", question.text);
  if (question.more) text.append(element("em", "", ` … ${plural(question.more, "more character")}`));
  const answer = element("p", "", "Reference answer: ", element("span", "viewer-answer", question.answer || "none"));
  byId("question").replaceChildren(
    element("div", "viewer-question", element("h3", "", "Question"), text, answer, ...drawPrompts(question)));
};

const draw = (keepSample = false) => {
  const set = data.sets[view.set];
  sift();
  if (passing.length && place() < 0) view.question = passing[0].question.id;
  const found = passing[place()];
  const kept = keepSample && found && view.sample < samplesOf(found.question);
  if (found && !kept && !found.samples.includes(view.sample)) [view.sample] = found.samples;
  drawControls(set, found);
  byId("question").replaceChildren();
  byId("responses").replaceChildren();
  if (!found) return;
  drawQuestion(found.question);
  const drawn = view.show.map((column) => drawResponse(
    columns[column].label, responseOf(found.question, column, view.sample), grades, pattern, view.raw));
  byId("responses").replaceChildren(...(drawn.length ? drawn : [element("p", "", "No model is chosen.")]));
};

const drawControls = (set, found) => {
  const all = set.questions.length;
  const samples = (total, each) => total + samplesOf(each);
  const every = plural(set.questions.reduce(samples, 0), "sample");
  const kept = passing.reduce((total, each) => total + each.samples.length, 0);
  byId("about").textContent = `${set.about}. ${all < set.there
    ? `${all} of ${plural(set.there, "question")} are here, chosen by hash.` : `All ${plural(all, "question")} are here.`}`;
  byId("count").textContent = filtered()
    ? `${passing.length} of ${plural(all, "question")} pass, with ${kept} of ${every}.` : `${plural(all, "question")}, ${every}.`;
  byId("active").textContent = filtered() ? `, filtered: ${filters().join(", ")}` : "";
  for (const name of ["set", "of", "outcome", "from", "to", "change"]) byId(name).value = view[name];
  for (const name of ["reflects", "raw"]) byId(name).checked = view[name];
  if (byId("text").value !== view.text) byId("text").value = view.text;
  for (const box of byId("columns").querySelectorAll("input")) box.checked = view.show.includes(Number(box.value));
  byId("number").max = passing.length;
  byId("number").value = found ? place() + 1 : "";
  byId("last").textContent = `of ${passing.length}`;
  byId("previous").setAttribute("aria-disabled", String(place() <= 0));
  byId("next").setAttribute("aria-disabled", String(place() >= passing.length - 1));
  fill("sample", (found ? everySample(found.question) : []).map((sample) => {
    const here = view.show.map((column) => responseOf(found.question, column, sample));
    const signs = here.map((response) => (response ? SIGNS[response.outcome][1] : "·")).join(" ");
    return [sample, `${sample + 1}: ${signs}${found.samples.includes(sample) ? "" : " (filtered out)"}`];
  }));
  byId("sample").value = view.sample;
};

const fill = (name, entries) => {
  byId(name).replaceChildren(...entries.map(([value, words]) => {
    const option = element("option", "", words);
    option.value = value;
    return option;
  }));
};

// --- links: the place, and what differs from the start, stand in the page's address

const save = () => {
  const query = new URLSearchParams({ set: data.sets[view.set].name, question: view.question, sample: view.sample + 1 });
  if (String(view.show) !== String(START.show)) for (const column of view.show) query.append("show", columns[column].key);
  for (const name of ["of", "from", "to"]) if (view[name] !== START[name]) query.set(name, columns[view[name]].key);
  for (const name of ["outcome", "change", "text"]) if (view[name]) query.set(name, view[name]);
  for (const name of ["reflects", "raw"]) if (view[name]) query.set(name, "yes");
  try {
    history.replaceState(null, "", LINK + query);
  } catch {
    // A page in a frame may not change its address; the view is none the worse.
  }
};

// Takes the view from the address; false where that is no link to one. What it does not know there is as at the start.
const load = () => {
  if (!location.hash.startsWith(LINK)) return false;
  const query = new URLSearchParams(location.hash.slice(LINK.length));
  const word = (name) => query.get(name) || "";
  const column = (name) => columns.findIndex((each) => each.key === name);
  const known = (name) => (column(word(name)) < 0 ? START[name] : column(word(name)));
  const show = inOrder(query.getAll("show").map(column).filter((number) => number >= 0));
  view = {
    set: Math.max(0, data.sets.findIndex((set) => set.name === word("set"))),
    question: word("question"), sample: Math.max(0, (parseInt(word("sample"), 10) || 1) - 1),
    show: show.length ? show : START.show, of: known("of"), from: known("from"), to: known("to"),
    outcome: Object.hasOwn(OUTCOMES, word("outcome")) ? word("outcome") : "",
    change: Object.hasOwn(CHANGES, word("change")) ? word("change") : "",
    reflects: query.has("reflects"), text: word("text").slice(0, 200), raw: query.has("raw"),
  };
  draw(query.has("sample"));
  return true;
};

// --- what the reader does

const change = (changes) => {
  view = { ...view, ...changes };
  draw("sample" in changes);
  save();
};

const turn = (to) => {
  if (to < 0 || to >= passing.length) return;
  change({ question: passing[to].question.id });
  const under = byId("bar").getBoundingClientRect().bottom;
  if (byId("question").getBoundingClientRect().top < under) byId("question").scrollIntoView();
};

const on = (name, event, act) => byId(name).addEventListener(event, ({ target }) => act(target));

const connect = () => {
  fill("set", data.sets.map((set, number) => [number, set.name]));
  for (const name of ["of", "from", "to"]) fill(name, columns.map((column, number) => [number, column.label]));
  for (const [name, table] of [["outcome", OUTCOMES], ["change", CHANGES]]) {
    fill(name, Object.entries(table).map(([value, [words]]) => [value, words]));
    on(name, "change", (target) => change({ [name]: target.value }));
  }
  byId("columns").append(...columns.map((column, number) => {
    const box = element("input", "");
    box.type = "checkbox";
    box.value = number;
    box.addEventListener("change", () => {
      change({ show: box.checked ? inOrder([...view.show, number]) : view.show.filter((each) => each !== number) });
    });
    return element("label", "", box, ` ${column.label}`);
  }));
  on("set", "change", (target) => change({ set: Number(target.value), question: "" }));
  on("sample", "change", (target) => change({ sample: Number(target.value) }));
  for (const name of ["of", "from", "to"]) { // who asks about a model wants to see it
    on(name, "change", (target) => change({ [name]: Number(target.value), show: inOrder([...view.show, Number(target.value)]) }));
  }
  for (const name of ["reflects", "raw"]) on(name, "change", (target) => change({ [name]: target.checked }));
  let waiting = 0;
  on("text", "input", (target) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change({ text: target.value }), 200);
  });
  on("reset", "click", () => {
    clearTimeout(waiting);
    change({ outcome: "", change: "", reflects: false, text: "" });
  });
  on("number", "change", (target) => {
    turn(Math.min(Math.max(Math.round(Number(target.value)) || 1, 1), passing.length) - 1);
    target.value = passing.length ? place() + 1 : "";
  });
  on("previous", "click", () => turn(place() - 1));
  on("next", "click", () => turn(place() + 1));
  document.getElementById("viewer").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const typing = event.target.closest("select, input:not([type=checkbox])");
    if (!step || typing || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    turn(place() + step);
  });
  window.addEventListener("hashchange", load);
};

connect();
byId("all").hidden = false;
if (load()) document.getElementById("viewer").scrollIntoView();
else draw();
byId("filters").open = filtered() || window.matchMedia("(min-width: 44rem)").matches;
