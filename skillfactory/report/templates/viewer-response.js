// How one response looks. Everything that a model, a question or a recipe says goes onto the page as text:
// createElement and append alone, so that nothing in it can become markup. viewer.js follows in the same script.

const SIGNS = {
  correct: ["right", "✓", "right"],
  wrong: ["wrong", "✗", "wrong"],
  no_answer: ["none", "–", "no answer"],
  not_scored: ["none", "?", "not scored"],
  "": ["none", "?", "not graded"],
};
const TAGS = /<answer>[^<]{0,500}<\/answer>|<verdict>\s*\w{1,20}\s*<\/verdict>|<\/?(?:think|sample|reflect|answer|verdict)>/g;

const element = (tag, name, ...children) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...children);
  return made;
};
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const badge = (kind, words) => element("span", `viewer-badge ${kind}`, words);
const outcomeBadge = (outcome) => badge(SIGNS[outcome][0], `${SIGNS[outcome][1]} ${SIGNS[outcome][2]}`);
const why = (...reasons) => reasons.filter(Boolean).map((reason) => element("span", "viewer-why", ` · ${reason}`));

const isRight = (response) => response.outcome === "correct";
const textOf = (response) => (response.text ??= response.pieces.map(([kind, text]) => (kind === "t" ? "" : text)).join(""));

// Text with what is searched for marked.
const marked = (text, pattern) => {
  if (!pattern) return [text];
  const found = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    found.push(text.slice(end, match.index), element("mark", "", match[0]));
    end = match.index + match[0].length;
  }
  return [...found, text.slice(end)];
};

// Text with its tags set apart; what an answer or a verdict says stands out.
const tagged = (text, pattern) => {
  const found = [];
  let end = 0;
  for (const match of text.matchAll(TAGS)) {
    const tag = match[0];
    const opened = tag.indexOf(">") + 1;
    found.push(...marked(text.slice(end, match.index), pattern), element("span", "viewer-tag", tag.slice(0, opened)));
    if (opened < tag.length) {
      const closed = tag.lastIndexOf("<");
      found.push(element("span", "viewer-said", ...marked(tag.slice(opened, closed), pattern)));
      found.push(element("span", "viewer-tag", tag.slice(closed)));
    }
    end = match.index + tag.length;
  }
  return [...found, ...marked(text.slice(end), pattern)];
};

// A block without the tags around it, and which of them the model left out.
const inside = (text) => text.replace(/^\s*(<(sample|reflect)>\s*)?/, "").replace(/(\s*<\/(sample|reflect)>)?$/, "").trimEnd();
const lacks = (text, tag) => [`<${tag}>`, `</${tag}>`].filter((each) => !text.includes(each)).map((each) => `without ${each}`);

// What a reflection says of the attempt before it, and whether that is true.
const verdictBadge = (said, isTrue) => {
  if (!said) return badge("none", "– no verdict");
  if (isTrue === null) return badge("none", `? says ${said}, of nothing that is graded`);
  return isTrue ? badge("right", `✓ says ${said}: true`) : badge("wrong", `✗ says ${said}: false`);
};

// The pieces of a response as elements, one each.
const drawPieces = (response, grades, pattern) => {
  let attempts = 0;
  const card = (name, label, text) => element("div", `viewer-piece ${name}`, element("p", "viewer-label", ...label),
    element("div", "viewer-text", ...tagged(text, pattern)));
  return response.pieces.map(([kind, text, grade, isTrue]) => {
    switch (kind) {
      case "s": {
        const [outcome, reason] = grades[grade];
        attempts += 1;
        const label = [`Attempt ${attempts} `, outcomeBadge(outcome), ...why(reason, ...lacks(text, "sample"))];
        return card(`sample ${SIGNS[outcome][0]}`, label, inside(text));
      }
      case "r": {
        const about = isTrue === null || isTrue === undefined ? "Reflection " : `Reflection on attempt ${attempts} `;
        return card("reflect", [about, verdictBadge(grade, isTrue), ...why(...lacks(text, "reflect"))], inside(text));
      }
      case "f":
        return card(`final ${SIGNS[response.outcome][0]}`, ["Final answer ", outcomeBadge(response.outcome)], text);
      case "t":
        return element("p", "viewer-event", `Budget forcing: the end of the thinking gave way to “${text}”.`);
      case "c":
        return element("p", "viewer-event", "The budget was used up here; an answer was asked for.");
      default:
        return element("div", "viewer-text viewer-between", ...tagged(text.replace(/^\n+/, "").trimEnd(), pattern));
    }
  });
};

// The attempts of a long response at a glance; each leads to its place. One stop of the tab key: up and down go on.
const drawPath = (response, drawn, grades, body) => {
  const steps = response.pieces.flatMap(([kind, , grade], place) => (kind === "s" ? [[grades[grade][0], drawn[place]]] : []));
  const buttons = steps.map(([outcome, target], number) => {
    const [kind, sign, words] = SIGNS[outcome];
    const button = element("button", `viewer-badge ${kind}`, `${number + 1} ${sign}`);
    button.type = "button";
    button.tabIndex = number ? -1 : 0;
    button.setAttribute("aria-label", `Go to attempt ${number + 1}, ${words}`);
    button.addEventListener("click", () => {
      if (body.scrollHeight > body.clientHeight) body.scrollTop = target.offsetTop - 3;
      else target.scrollIntoView({ block: "center" });
    });
    return button;
  });
  const path = element("div", "viewer-path", ...buttons);
  path.setAttribute("role", "group");
  path.setAttribute("aria-label", "Attempts");
  path.addEventListener("keydown", (event) => {
    const next = buttons[buttons.indexOf(event.target) + ({ ArrowUp: -1, ArrowDown: 1 }[event.key] || 0)];
    if (!next || next === event.target) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  return path;
};

const factsOf = (response, grades) => {
  const wasRight = response.pieces.some(([kind, , grade]) => kind === "s" && grades[grade][0] === "correct");
  return [
    plural(response.tokens, "token"),
    { length: "cut at the limit", failed: "could not be made" }[response.end] || "ended by itself",
    response.forced ? `forced to go on ${response.forced === 1 ? "once" : plural(response.forced, "time")}` : "",
    wasRight && !isRight(response) ? "had a right attempt and left it" : "",
    response.malformed ? `malformed: ${plural(response.malformed, "tag")} missing or out of place` : "",
  ].filter(Boolean).join(" · ");
};

// One response under the name of its model; null where there is none.
const drawResponse = (name, response, grades, pattern, raw) => {
  const box = element("div", "viewer-column", element("h4", "", name));
  if (!response) {
    box.append(element("p", "viewer-facts", "No response with this number."));
    return box;
  }
  const text = textOf(response);
  const drawn = raw ? [element("div", "viewer-text viewer-raw", ...marked(text, pattern))] : drawPieces(response, grades, pattern);
  const body = element("div", "viewer-body", ...drawn);
  if (!text) body.append(element("p", "viewer-facts", "The response is empty."));
  if (response.more) body.append(element("p", "viewer-event", `${plural(response.more, "more character")} not shown.`));
  body.tabIndex = 0;
  body.setAttribute("role", "region");
  body.setAttribute("aria-label", `Response of ${name}`);
  box.append(
    element("p", "", outcomeBadge(response.outcome), ...why(response.why)),
    element("p", "", "Answer: ", element("span", "viewer-answer", response.answer || "none")),
    element("p", "viewer-facts", factsOf(response, grades)));
  if (!raw && response.pieces.filter(([kind]) => kind === "s").length > 1) box.append(drawPath(response, drawn, grades, body));
  box.append(body);
  return box;
};
