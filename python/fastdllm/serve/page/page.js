// The page: a conversation on one side, what each pass of an answer did on the other.

import { ask, events, headers, ServerError } from "./stream.js";
import { TraceView } from "./trace_view.js";

const byId = (id) => document.getElementById(id);
const form = byId("ask");
const view = new TraceView(byId("view"));

const POLICIES = {
  threshold: { name: "Threshold", value: 0.9, min: 0.0001, max: 1, step: "any",
    note: "Commits every position at least this confident, and always the best one." },
  factor: { name: "Factor", value: 1, min: 0.0001, step: "any",
    note: "Commits the most positions n for which (n + 1) (1 - the n-th confidence) stays below the factor." },
  frechet: { name: "Margin", value: 0.25, min: 0, max: 0.9999, step: "any",
    note: "Commits by the Fréchet profile of the confidences, with this margin." },
  entropy_bound: { name: "Nats", value: 0.1, min: 0, step: "any",
    note: "Commits while the entropies sum up to at most this." },
  steps: { name: "Steps", value: 16, min: 1, step: 1,
    note: "Passes over the whole answer, divided among its blocks." },
};

let turns = []; // { prompt, kind, text, trace, complete }
let running = null; // the AbortController of the request under way
let models = new Map(); // facts of each, by name
const sent = {}; // the last value of each policy

// --- options ---

function numberOf(input) {
  return input.value === "" ? undefined : Number(input.value);
}

function options() {
  const given = { [byId("policy").value]: numberOf(byId("value")), cache: byId("cache").value };
  for (const name of ["max_new_tokens", "block_length", "temperature", "seed"]) {
    const value = numberOf(form.elements[name]);
    if (value !== undefined) given[name] = value;
  }
  return given;
}

function choosePolicy() {
  const policy = byId("policy").value;
  const { name, value, min, max, step, note } = POLICIES[policy];
  byId("value-name").textContent = name;
  byId("policy-note").textContent = note;
  Object.assign(byId("value"), { min, max: max ?? "", step, value: sent[policy] ?? value });
  summarize();
}

function summarize() {
  const { name } = POLICIES[byId("policy").value];
  byId("summary").textContent = `(${name.toLowerCase()} ${byId("value").value}, cache ${byId("cache").value},`
    + ` ${form.elements.max_new_tokens.value} new tokens)`;
}

function chooseModel() {
  const facts = models.get(byId("model").value) ?? {};
  form.elements.block_length.placeholder = facts.block_length ?? 32;
  for (const option of byId("kind").options) option.disabled = facts.chat === false && option.value !== "raw";
  if (byId("kind").selectedOptions[0].disabled) byId("kind").value = "raw"; // it has no chat template
}

// --- errors ---

function fieldOf(param) {
  const name = String(param ?? "").split(".")[0];
  if (name === byId("policy").value) return byId("value");
  if (["messages", "prompt"].includes(name)) return byId("prompt");
  if (["max_tokens", "max_completion_tokens"].includes(name)) return form.elements.max_new_tokens;
  return form.elements[name];
}

function showError(problem) {
  const known = problem instanceof ServerError;
  const told = byId("error");
  told.textContent = known ? problem.message : `The page met an error: ${problem.message}`;
  if (problem.param && !problem.message.includes(problem.param)) told.textContent += ` (${problem.param})`;
  if (problem.status === 401) told.textContent += " (write it into the field API key)";
  told.hidden = false;
  const field = problem.status === 401 ? byId("key") : fieldOf(problem.param);
  if (field instanceof HTMLElement) {
    field.setAttribute("aria-invalid", "true");
    if (field.closest("#options")) byId("options").open = true;
    field.focus();
  }
}

function clearError() {
  byId("error").hidden = true;
  byId("error").textContent = "";
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

// --- turns ---

function addTurn(who, text) {
  const item = document.createElement("li");
  item.className = `turn ${who}`;
  const head = document.createElement("div");
  head.className = "who";
  const name = document.createElement("span");
  name.textContent = who === "user" ? "You" : "Answer";
  head.append(name);
  const body = document.createElement("p");
  body.dir = "auto";
  body.textContent = text;
  item.append(head, body);
  byId("turns").append(item);
  byId("welcome").hidden = true;
  return item;
}

function showTurn(turn) {
  for (const item of document.querySelectorAll(".turn.assistant")) {
    const shown = item === turn.item;
    item.classList.toggle("shown", shown);
    item.querySelector("button")?.setAttribute("aria-pressed", String(shown));
  }
  if (view.trace !== turn.trace) {
    view.load(turn.trace);
    turn.trace = view.trace;
  }
}

function addShowButton(turn) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Show passes";
  button.setAttribute("aria-pressed", "true");
  button.addEventListener("click", () => showTurn(turn));
  turn.item.querySelector(".who").append(button);
}

function messagesBefore(prompt, kind) {
  const earlier = kind === "chat" ? turns.filter((turn) => turn.complete && turn.kind !== "raw") : [];
  return [
    ...earlier.flatMap((turn) => [
      { role: "user", content: turn.prompt }, { role: "assistant", content: turn.text }]),
    { role: "user", content: prompt },
  ];
}

// --- asking ---

async function submit() {
  const prompt = byId("prompt").value;
  const kind = byId("kind").value;
  const config = options();
  sent[byId("policy").value] = byId("value").value;
  clearError();
  const model = byId("model").value;
  const asked = kind === "raw" ? { prompt } : { messages: messagesBefore(prompt, kind) };
  const body = { ...(model && { model }), ...asked, stream: true, diffusing: true,
    stream_options: { include_usage: true }, ...config };
  const question = addTurn("user", prompt);
  const turn = { prompt, kind, text: "", complete: false, item: addTurn("assistant", "") };
  setRunning(new AbortController());
  byId("prompt").value = "";
  const previous = view.trace;
  view.start({ package: model, prompt, config, num_positions: config.max_new_tokens,
    block_length: config.block_length ?? 0 });
  turn.trace = view.trace;
  showTurn(turn);
  byId("status").textContent = "Asked; the answer is being unmasked.";
  try {
    await follow(turn, body, kind);
    turn.complete = true;
    const { num_passes: passes } = turn.trace.completion;
    byId("status").textContent = `Answer, after ${passes} ${passes === 1 ? "pass" : "passes"}: ${turn.text}`;
  } catch (problem) {
    if (turn.trace.passes.length === 0) { // nothing came: the prompt goes back to where it was
      question.remove();
      turn.item.remove();
      if (turns.length) showTurn(turns.find((one) => one.trace === previous) ?? turns.at(-1));
      byId("prompt").value ||= prompt;
    } else {
      turn.item.querySelector(".who span").textContent = "Answer, not complete";
    }
    if (problem.name === "AbortError") byId("status").textContent = "Cancelled.";
    else showError(problem);
  } finally {
    setRunning(null);
    if (turn.item.isConnected) {
      turns.push(turn);
      addShowButton(turn);
    }
    byId("welcome").hidden = byId("turns").children.length > 0;
  }
}

async function follow(turn, body, kind) {
  const response = await ask(kind === "raw" ? "v1/completions" : "v1/chat/completions", {
    method: "POST", signal: running.signal, body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", ...headers(byId("key").value) },
  });
  const end = {};
  const text = turn.item.querySelector("p");
  for await (const chunk of events(response)) {
    const [choice] = chunk.choices;
    if (choice) {
      turn.text += choice.delta?.content ?? choice.text ?? "";
      if (choice.finish_reason) end.finish_reason = choice.finish_reason;
    }
    if (chunk.diffusing && turn.trace === view.trace) {
      const { index, ...pass } = chunk.diffusing;
      turn.trace.block_length ||= pass.block_end - pass.block_start;
      view.push(pass);
    }
    text.textContent = turn.text;
    Object.assign(end, chunk.stats);
    if (chunk.usage) {
      end.prompt_tokens = chunk.usage.prompt_tokens;
      end.completion_tokens = chunk.usage.completion_tokens;
    }
  }
  if (turn.trace === view.trace) view.finish({ text: turn.text, ...end });
}

function setRunning(controller) {
  running = controller;
  const busy = controller !== null;
  const focused = document.activeElement;
  byId("cancel").hidden = !busy;
  byId("send").hidden = busy;
  byId("fresh").disabled = busy;
  for (const id of ["save-json", "save-html"]) byId(id).disabled = busy || view.trace.passes.length === 0;
  for (const button of document.querySelectorAll(".turn button")) button.disabled = busy;
  if (focused === byId("cancel")) byId("prompt").focus();
  if (focused === byId("send")) byId("cancel").focus();
}

async function listModels() {
  try {
    const response = await ask("v1/models", { headers: headers(byId("key").value) });
    const chosen = byId("model").value;
    models = new Map((await response.json()).data.map((model) => [model.id, model.fastdllm ?? {}]));
    byId("model").replaceChildren(
      ...[...models.keys()].map((name) => new Option(name, name, false, name === chosen)));
    clearError();
    chooseModel();
  } catch (problem) {
    showError(problem);
  }
}

// --- files ---

function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

async function saveHtml() {
  const { trace } = view;
  try {
    const names = ["trace.html", "trace_view.css", "trace_picture.js", "trace_view.js"];
    const [template, STYLE, ...scripts] = await Promise.all(
      names.map(async (name) => (await ask(`page/${name}`)).text()));
    const SCRIPT = scripts.join("\n").replace(/^import .*\n/gm, ""); // one script holds both
    const DATA = JSON.stringify(trace).replace(/[<>&]/g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`);
    const TITLE = `fastdllm trace: ${trace.package}`.replace(/[<>&"]/g, (one) => `&#${one.charCodeAt(0)};`);
    const parts = { TITLE, STYLE, SCRIPT, DATA };
    save("trace.html", "text/html", template.replace(/\{\{([A-Z]+)\}\}/g, (_, name) => parts[name]));
  } catch (problem) {
    showError(problem);
  }
}

// --- theme ---

const THEMES = ["auto", "light", "dark"];

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
}

function stored(storage, name, value) {
  try {
    if (value !== undefined) window[storage].setItem(name, value);
    return window[storage].getItem(name);
  } catch { // storage is switched off: the page does without
    return null;
  }
}

// --- start ---

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) submit();
});
byId("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) form.requestSubmit();
});
document.addEventListener("input", (event) => { // what an error was about has changed
  if (event.target.hasAttribute("aria-invalid")) clearError();
});
document.addEventListener("invalid", (event) => { // the browser says what is wrong now
  clearError();
  if (event.target.closest("#options")) byId("options").open = true;
}, true);
byId("cancel").addEventListener("click", () => running?.abort());
byId("fresh").addEventListener("click", () => {
  turns = [];
  byId("turns").replaceChildren();
  byId("welcome").hidden = false;
  clearError();
  view.start({ package: "", prompt: "", config: {}, num_positions: 0, block_length: 0 });
  setRunning(null);
  byId("prompt").focus();
});
byId("save-json").addEventListener("click", () =>
  save("trace.json", "application/json", `${JSON.stringify(view.trace, null, 1)}\n`));
byId("save-html").addEventListener("click", saveHtml);
byId("policy").addEventListener("change", choosePolicy);
byId("model").addEventListener("change", chooseModel);
byId("options").addEventListener("input", summarize);
byId("key").value = stored("sessionStorage", "fastdllm-key") ?? "";
byId("key").addEventListener("change", () => {
  stored("sessionStorage", "fastdllm-key", byId("key").value);
  listModels();
});
byId("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "auto";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  stored("localStorage", "fastdllm-theme", next);
  setTheme(next);
});
const theme = stored("localStorage", "fastdllm-theme");
setTheme(THEMES.includes(theme) ? theme : "auto");
byId("options").open = window.matchMedia("(min-width: 60rem)").matches;
choosePolicy();
listModels();
