// Shows a trace: which tokens stand where after each pass, how sure the model was of them, and when
// each position was unmasked. The page uses it, and so does the file of `fastdllm trace --html`.

import { TracePicture, count, element, level } from "./trace_picture.js";

const LEVEL_NAMES = ["below 0.5", "0.5 to 0.7", "0.7 to 0.9", "0.9 to 0.99", "0.99 and above"];

// Text that can be seen: no control, direction or zero-width character is left in it.
function visible(token) {
  if (token === "") return "\u2205";
  if (/^ +$/.test(token)) return token.replaceAll(" ", "\u2423");
  return token.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) => {
    const code = character.codePointAt(0);
    if (character === "\n") return "\u21b5";
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return code === 0x200d ? character : `\u27e8${code.toString(16).padStart(4, "0")}\u27e9`;
  });
}

function duration(seconds) {
  return seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(2)} s`;
}

export class TraceView {
  // root: an element, whose content is replaced. heading: the tag of the trace's name, or null.
  constructor(root, { heading = null } = {}) {
    this.heading = heading;
    this.root = root;
    this.build();
    this.start({ package: "", prompt: "", config: {}, num_positions: 0, block_length: 0 });
  }

  build() {
    const button = (name, act) => element("button", { type: "button", onclick: act }, name);
    this.facts = element("dl", { class: "facts" });
    this.first = button("First", () => this.show(0));
    this.back = button("Back", () => this.show(this.shown - 1));
    this.player = button("Play", () => (this.timer ? this.pause() : this.play()));
    this.next = button("Next", () => this.show(this.shown + 1));
    this.last = button("Last", () => this.show(this.trace.passes.length));
    this.slider = element("input", {
      type: "range", min: 0, max: 0, value: 0, oninput: () => this.show(Number(this.slider.value)),
    });
    this.told = element("p", { class: "now-shown" });
    this.tokens = element("div", {
      class: "tokens", role: "listbox", "aria-label": "Tokens", "aria-orientation": "horizontal",
      onclick: (event) => this.select(this.positionOf(event.target)),
      onkeydown: (event) => this.move(event),
      onfocusin: (event) => this.select(this.positionOf(event.target), false),
    });
    this.about = element("p", { class: "about" });
    this.legend = element("ul", { class: "legend", "aria-label": "Confidence when committed" },
      ...LEVEL_NAMES.map((name, i) =>
        element("li", {}, element("span", { class: `token sure-${i}`, "aria-hidden": "true" }, "ab"), name)),
      element("li", {}, element("span", { class: "token masked", "aria-hidden": "true" }, "\u2591"), "masked"),
      element("li", {}, element("span", { class: "token sure-4 fresh", "aria-hidden": "true" }, "ab"), "new in this pass"));
    this.picture = new TracePicture((pass) => this.show(pass), () => this.later());
    this.rows = element("tbody");
    const head = ["pass", "kind", "block", "committed", "lowest confidence", "rows", "time", "text"];
    this.table = element("details", {}, element("summary", {}, "Passes as a table"),
      element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Passes as a table" },
        element("table", {}, element("thead", {}, element("tr", {},
          ...head.map((name) => element("th", { scope: "col" }, name)))), this.rows)));
    this.table.addEventListener("toggle", () => this.later());
    this.answer = element("pre", { class: "answer", dir: "auto" });
    this.prompt = element("pre", { dir: "auto" });
    this.config = element("pre");
    this.name = this.heading && element(this.heading);
    this.root.replaceChildren(element("div", { class: "trace" },
      ...(this.name ? [this.name, this.prompt] : []),
      this.facts,
      element("div", { class: "steps", role: "group", "aria-label": "Passes" },
        this.first, this.back, this.player, this.next, this.last,
        element("label", {}, "Pass", this.slider)),
      this.told, this.tokens, this.about, this.legend, this.picture.figure,
      element("details", {}, element("summary", {}, "Answer as text"), this.answer),
      this.table,
      element("details", {}, element("summary", {}, "Options"), this.config)));
  }

  // Show a whole trace document, from its last pass.
  load(trace) {
    this.start(trace);
    for (const pass of trace.passes) this.push(pass);
    if (trace.completion) this.finish(trace.completion);
    this.render();
  }

  // Begin a trace whose passes come one by one.
  start({ package: name, prompt, config, num_positions, block_length }) {
    this.pause();
    this.trace = { package: name, prompt, config, num_positions, block_length, passes: [] };
    this.commits = new Map(); // position -> what was committed there, in order
    this.blocks = []; // [start, end) in order, as passes name them
    this.chips = new Map();
    this.shown = 0;
    this.selected = null;
    this.tokens.replaceChildren();
    this.rows.replaceChildren();
    this.render();
  }

  // Take a pass; the view follows unless it was slid back.
  push(pass) {
    const follows = this.shown === this.trace.passes.length && !this.timer;
    const number = this.trace.passes.push(pass);
    pass.positions.forEach((position, i) => {
      if (!this.commits.has(position)) this.commits.set(position, []);
      this.commits.get(position).push({
        pass: number, token: pass.tokens[i], id: pass.token_ids[i], confidence: pass.confidences[i],
      });
    });
    const known = this.blocks.at(-1);
    if (this.trace.config.deferred_window != null) { // the window slides: one block that grows
      this.blocks = [[0, Math.max(known ? known[1] : 0, pass.block_end)]];
    } else if (!known || pass.block_start >= known[1]) {
      this.blocks.push([pass.block_start, pass.block_end]);
    }
    if (follows) this.shown = number;
    this.later();
  }

  // The answer is complete: completion is the trace document's, or as much of it as is known.
  finish(completion) {
    this.trace.completion = completion;
    this.rows.replaceChildren();
    this.later();
  }

  // Show the state after so many passes.
  show(passes, byTimer = false) {
    if (!byTimer) this.pause();
    this.shown = Math.max(0, Math.min(passes, this.trace.passes.length));
    this.render();
  }

  play() {
    const total = this.trace.passes.length;
    if (this.shown >= total) this.show(0);
    this.timer = setInterval(() => {
      this.show(this.shown + 1, true);
      if (this.shown >= this.trace.passes.length) this.pause();
    }, Math.max(100, Math.min(700, 8000 / Math.max(1, total))));
    this.player.textContent = "Pause";
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.player.textContent = "Play";
  }

  // Render once in the next frame, however many passes arrive until then.
  later() {
    this.frame ??= requestAnimationFrame(() => this.render());
  }

  render() {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = null;
    const { passes } = this.trace;
    const now = passes[this.shown - 1];
    this.slider.max = passes.length;
    this.slider.value = this.shown;
    this.slider.disabled = passes.length === 0;
    this.first.disabled = this.back.disabled = this.shown === 0;
    this.next.disabled = this.last.disabled = this.shown === passes.length;
    this.player.disabled = passes.length === 0;
    const told = this.tellPass(now);
    this.told.textContent = told;
    this.slider.setAttribute("aria-valuetext", told);
    this.renderFacts();
    this.renderTokens(now);
    this.tellToken();
    this.picture.draw(this.trace, this.blocks, this.shown);
    this.renderTable();
    this.prompt.textContent = this.trace.prompt;
    this.answer.textContent = this.trace.completion?.text ?? passes.at(-1)?.text ?? "";
    this.config.textContent = JSON.stringify(this.trace.config, null, 1);
    if (this.name) this.name.textContent = `${this.trace.package}: how the answer was unmasked`;
  }

  tellPass(pass) {
    const total = this.trace.passes.length;
    if (!total) return "No pass yet.";
    if (!pass) return `Before the first of ${count(total, "pass")}: everything is masked.`;
    const kind = pass.refreshed ? "refresh" : "step";
    return `Pass ${this.shown} of ${total}: a ${kind} in block ${pass.block + 1} over`
      + ` ${count(pass.rows, "row")}, ${count(pass.positions.length, "token")} committed,`
      + ` ${duration(pass.seconds)} since the start.`;
  }

  renderFacts() {
    const { passes, completion } = this.trace;
    const refreshes = completion?.refresh_passes ?? passes.filter((pass) => pass.refreshed).length;
    const total = completion?.num_passes ?? passes.length;
    const steps = completion?.step_passes ?? total - refreshes;
    const tokens = completion?.completion_tokens ?? this.commits.size;
    const seconds = completion?.seconds ?? passes.at(-1)?.seconds;
    const perForward = completion?.tokens_per_forward ?? (total ? tokens / total : null);
    const listed = [
      ["Passes", total, `${count(refreshes, "refresh")}, ${count(steps, "step")}`],
      ["Tokens", tokens, completion?.finish_reason ? `ended by ${completion.finish_reason}` : ""],
      ["Tokens per forward", perForward == null ? "\u2013" : perForward.toFixed(2), ""],
      ["Tokens/s", seconds ? (tokens / seconds).toFixed(0) : "\u2013", ""],
      ["Time", seconds == null ? "\u2013" : duration(seconds), ""],
      ["First commit", passes.length ? duration(passes[0].seconds) : "\u2013", ""],
    ];
    this.facts.replaceChildren(...listed.map(([name, value, note]) =>
      element("div", {}, element("dt", {}, name),
        element("dd", {}, String(value), ...(note ? [" ", element("small", {}, note)] : [])))));
  }

  renderTokens(now) {
    this.blocks.forEach(([start, end], i) => {
      const box = this.tokens.children[i] ?? this.addBlock(i);
      for (let position = start; position < end; position += 1) {
        if (!this.chips.has(position)) this.addChip(box, position);
      }
      const current = now && now.block_start < end && now.block_end > start;
      const slides = this.trace.config.deferred_window != null;
      box.classList.toggle("current", Boolean(current) && !slides);
      const name = slides ? "positions" : `block ${i + 1}, positions`;
      const state = !current || slides ? "" : now.block_finished ? ": finished" : ": current";
      box.firstChild.textContent = `${name} ${start} to ${end - 1}${state}`;
    });
    for (const [position, chip] of this.chips) this.renderChip(chip, position, now);
    this.reveal(this.tokens.querySelector(".current, .window"));
    const end = this.blocks.at(-1)?.[1] ?? 0;
    const rest = this.trace.num_positions - end;
    this.rest?.remove();
    this.rest = null;
    if (rest > 0 && this.trace.passes.length) {
      const why = this.trace.completion ? "behind the end of the answer stayed masked" : "are masked behind these";
      this.rest = element("p", { class: "rest" }, `${count(rest, "position")} ${why}.`);
      this.tokens.after(this.rest);
    }
  }

  // Scroll the tokens, and nothing around them, to where an element is.
  reveal(inside) {
    if (!inside) return;
    const [box, frame] = [inside.getBoundingClientRect(), this.tokens.getBoundingClientRect()];
    if (box.bottom > frame.bottom) this.tokens.scrollTop += box.bottom - frame.bottom;
    if (box.top < frame.top) this.tokens.scrollTop -= frame.top - box.top;
  }

  addBlock(number) {
    const box = element("div", { class: "block", role: "group", "aria-label": `Block ${number + 1}` },
      element("span", { class: "name", "aria-hidden": "true" }));
    this.tokens.append(box);
    return box;
  }

  addChip(box, position) {
    const chip = element("span", {
      class: "token", role: "option", tabindex: -1, dir: "auto", "data-position": position,
    });
    box.append(chip);
    this.chips.set(position, chip);
  }

  at(position) {
    return this.commits.get(position)?.findLast((one) => one.pass <= this.shown);
  }

  renderChip(chip, position, now) {
    const one = this.at(position);
    const end = this.trace.completion?.completion_tokens ?? Infinity;
    const classes = ["token"];
    if (!one) classes.push("masked");
    else classes.push(`sure-${level(one.confidence)}`);
    if (one?.pass === this.shown) classes.push("fresh");
    if (one && /^<.+>$/.test(one.token)) classes.push("special");
    if (one && position >= end) classes.push("padding");
    if (this.trace.config.deferred_window != null && now && position >= now.block_start && position < now.block_end) {
      classes.push("window");
    }
    const state = `${one?.pass} ${position >= end}`;
    if (chip.state !== state) {
      chip.state = state;
      const told = chip.title = this.describe(position, one);
      chip.setAttribute("aria-label", told);
      chip.textContent = !one ? "\u2591" : position >= end ? "\u00b7" : visible(one.token);
    }
    chip.className = classes.join(" ");
    chip.tabIndex = position === (this.selected ?? 0) ? 0 : -1;
    chip.setAttribute("aria-selected", String(position === this.selected));
    const breaks = Boolean(one?.token.includes("\n"));
    if (breaks !== (chip.nextSibling?.nodeName === "BR")) {
      if (breaks) chip.after(element("br"));
      else chip.nextSibling.remove();
    }
  }

  describe(position, one) {
    if (!one) return `Position ${position}: masked`;
    const padding = position >= (this.trace.completion?.completion_tokens ?? Infinity);
    return `Position ${position}: \u201c${visible(one.token)}\u201d, token ${one.id}, confidence`
      + ` ${Number(one.confidence.toPrecision(4))}, committed by pass ${one.pass}`
      + (padding ? ", behind the end of the answer" : "");
  }

  positionOf(target) {
    const position = target.closest?.("[data-position]")?.dataset.position;
    return position === undefined ? null : Number(position);
  }

  select(position, focus = true) {
    if (position === null || !this.chips.has(position)) return;
    for (const [one, chip] of this.chips) {
      chip.tabIndex = one === position ? 0 : -1;
      chip.setAttribute("aria-selected", String(one === position));
    }
    this.selected = position;
    if (focus) this.chips.get(position).focus();
    this.tellToken();
  }

  move(event) {
    const end = Math.max(...this.chips.keys());
    const from = this.selected ?? 0;
    const block = this.blocks.findLastIndex(([start]) => start <= from);
    const to = {
      ArrowRight: from + 1, ArrowLeft: from - 1, Home: 0, End: end,
      ArrowDown: this.blocks[block + 1]?.[0], ArrowUp: this.blocks[block - 1]?.[0],
    }[event.key];
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.select(Math.max(0, Math.min(end, to)));
  }

  tellToken() {
    if (this.selected === null) {
      this.about.textContent = "Choose a token to read its confidence, its id and its pass.";
      return;
    }
    const times = this.commits.get(this.selected)?.length ?? 0;
    const edits = times > 1 ? ` (committed ${times} times: it was edited)` : "";
    this.about.textContent = this.describe(this.selected, this.at(this.selected)) + edits;
  }

  renderTable() {
    if (!this.table.open) return;
    const { passes } = this.trace;
    for (let i = this.rows.children.length; i < passes.length; i += 1) {
      const pass = passes[i];
      const lowest = pass.confidences.length ? Math.min(...pass.confidences).toPrecision(4) : "\u2013";
      const cells = [i + 1, pass.refreshed ? "refresh" : "step", pass.block + 1, pass.positions.length,
        lowest, pass.rows, duration(pass.seconds), this.textOf(pass)];
      this.rows.append(element("tr", {}, ...cells.map((cell) => element("td", {}, String(cell)))));
    }
  }

  textOf(pass) {
    const end = this.trace.completion?.completion_tokens ?? Infinity;
    const kept = pass.tokens.filter((_, i) => pass.positions[i] < end);
    const behind = pass.tokens.length - kept.length;
    return kept.map(visible).join(" ") + (behind ? ` (and ${behind} behind the end)` : "");
  }
}
