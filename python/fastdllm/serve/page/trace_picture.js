// The picture of a trace: passes downwards, positions to the right. Used by trace_view.js.

const LEVELS = [0.5, 0.7, 0.9, 0.99]; // where a class of confidence ends and the next begins
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 34, TOP = 4, BOTTOM = 18; // of the frame, in pixels

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// The class of a confidence, from 0 to 4.
export function level(confidence) {
  return LEVELS.filter((end) => confidence >= end).length;
}

export function count(number, what) {
  return `${number} ${what}${number === 1 ? "" : /(s|sh)$/.test(what) ? "es" : "s"}`;
}

export class TracePicture {
  // onPick: called with the pass, from 1, whose row was clicked. onResize: called when draw() has to be.
  constructor(onPick, onResize) {
    this.svg = shape("svg", { role: "img" });
    this.svg.addEventListener("click", (event) => onPick(this.passAt(event)));
    this.band = shape("rect", { class: "band", x: 0 });
    this.figure = element("figure", {}, this.svg, element("figcaption", {},
      "When each position was unmasked: passes downwards, positions to the right. \u25b8 at the left:"
      + " the pass refreshed the cache (or had none)."));
    new ResizeObserver(onResize).observe(this.figure);
  }

  // Draw a trace's passes; blocks: [start, end) of each. shown: the pass to mark, 0 = none.
  draw(trace, blocks, shown) {
    const { passes, completion } = trace;
    const width = Math.max(200, this.figure.clientWidth - 2);
    const drawn = [trace, passes.length, completion, width];
    if (!this.drawn?.every((one, i) => one === drawn[i])) {
      this.drawn = drawn;
      this.figure.hidden = passes.length === 0;
      this.height = Math.max(3, Math.min(18, 320 / Math.max(1, passes.length))); // of a pass
      this.redraw(passes, blocks, width, completion?.completion_tokens ?? Infinity);
    }
    this.band.setAttribute("y", this.down(shown));
    this.band.setAttribute("visibility", shown ? "visible" : "hidden");
  }

  down(pass) {
    return TOP + (pass - 1) * this.height;
  }

  // answerEnd: one past the answer's last position; what is behind it is pale.
  redraw(passes, blocks, width, answerEnd) {
    const columns = Math.max(1, blocks.at(-1)?.[1] ?? 1);
    const across = (width - LEFT - 4) / columns;
    const bottom = this.down(passes.length + 1);
    const drawn = [this.band];
    const write = (x, y, text, anchor) => {
      const made = shape("text", { x, y, "text-anchor": anchor });
      made.textContent = text;
      drawn.push(made);
    };
    this.svg.setAttribute("viewBox", `0 0 ${width} ${bottom + BOTTOM}`);
    this.band.setAttribute("width", width);
    this.band.setAttribute("height", this.height);
    for (const [start] of blocks) {
      const x = LEFT + start * across;
      drawn.push(shape("path", { class: "border", d: `M${x} 0V${bottom + 4}` }));
      if (columns * across / blocks.length > 28) write(x + 2, bottom + BOTTOM - 4, start, "start");
    }
    passes.forEach((pass, i) => {
      const y = this.down(i + 1);
      const middle = y + this.height / 2;
      pass.positions.forEach((position, n) => {
        drawn.push(shape("rect", {
          class: `cell sure-${level(pass.confidences[n])}${position >= answerEnd ? " late" : ""}`,
          x: LEFT + position * across, y: y + 0.5,
          width: Math.max(1.5, across - 1), height: Math.max(2, this.height - 1),
        }));
      });
      if (pass.refreshed) {
        const size = Math.min(5, Math.max(2, this.height / 2 - 1));
        drawn.push(shape("path", { class: "refresh", d: `M${LEFT - 9} ${middle - size}l7 ${size}l-7 ${size}z` }));
      }
      const numbered = this.height >= 11 || i === 0 || i === passes.length - 1;
      if (numbered) write(LEFT - 13, middle + 4, i + 1, "end");
    });
    this.svg.replaceChildren(...drawn);
    const refreshes = passes.flatMap((pass, i) => (pass.refreshed ? [i + 1] : []));
    this.svg.setAttribute("aria-label", `${count(columns, "position")} unmasked in`
      + ` ${count(passes.length, "pass")}; refreshes: ${refreshes.join(", ") || "none"}.`
      + " The table below has the same facts.");
  }

  passAt(event) {
    const box = this.svg.getBoundingClientRect();
    const y = (event.clientY - box.top) * this.svg.viewBox.baseVal.height / box.height;
    return Math.max(1, Math.floor((y - TOP) / this.height) + 1);
  }
}
