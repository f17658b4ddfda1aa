/** The drawing pad, for mouse, pen, finger or keys. */

import { element } from "../shared/dom.js";
import { paintDrawing, resolution } from "./strokes.js";

const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 0.03; // share of the pad that an arrow key moves the pen

const LABEL = "Drawing pad. Arrows move the pen, Space puts it down and lifts it, Control Z undoes, Delete clears.";

const within = (value) => Math.min(Math.max(value, 0), 1);

export class Pad {
  /** `onChange()` is called when the drawing changes, `say(text)` when a key puts the pen down or lifts it. */
  constructor(onChange, say) {
    Object.assign(this, { onChange, say });
    [this.strokes, this.start, this.pen, this.isDown, this.pointer] = [[], null, [0.5, 0.5], false, null];
    [this.paper, this.ink] = ["#000000", "#ffffff"];
    this.canvas = element("canvas", { className: "pad-canvas", tabIndex: 0, attributes: { role: "application", "aria-label": LABEL } });
    this.cursor = element("span", { className: "pad-pen", hidden: true, attributes: { "aria-hidden": "true" } });
    this.hint = element("span", { className: "pad-hint", attributes: { "aria-hidden": "true" } }, "Draw here");
    this.root = element("div", { className: "pad" }, this.canvas, this.hint, this.cursor);
    this.#listen();
  }

  get isEmpty() {
    return !this.start && !this.strokes.length;
  }

  /** Take the size and background of a model's images. */
  fit(model) {
    [this.canvas.width, this.canvas.height] = resolution(model);
    if (model.paper !== this.paper) [this.strokes, this.start, this.paper] = [[], null, model.paper];
    this.canvas.style.aspectRatio = `${model.width} / ${model.height}`;
    this.#changed();
  }

  clear(start = null) {
    [this.strokes, this.start, this.isDown] = [[], start, false];
    this.#changed();
  }

  /** Remove the last stroke; without strokes, the start image. */
  undo() {
    if (!this.strokes.pop()) this.start = null;
    this.isDown = false;
    this.#changed();
  }

  #listen() {
    const { canvas } = this;
    canvas.onpointerdown = (event) => this.#begin(event);
    canvas.onpointermove = (event) => this.#go(event);
    canvas.onpointerup = canvas.onpointercancel = (event) => this.#end(event);
    canvas.onkeydown = (event) => this.#key(event);
    canvas.onfocus = () => (this.cursor.hidden = !canvas.matches(":focus-visible"));
    canvas.onblur = () => {
      this.cursor.hidden = true;
      this.isDown = false;
    };
  }

  #at(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
  }

  /** Start a stroke at a point. */
  #startStroke(point) {
    this.strokes.push({ color: this.ink, points: [point] });
  }

  #begin(event) {
    if (this.pointer !== null || event.button > 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor.hidden = true;
    this.isDown = false;
    this.#startStroke(this.#at(event));
    this.#changed();
  }

  #go(event) {
    if (event.pointerId !== this.pointer) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    this.strokes.at(-1).points.push(...(passed.length ? passed : [event]).map((one) => this.#at(one)));
    this.#changed();
  }

  #end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.#changed();
  }

  #key(event) {
    const direction = KEYS[event.key];
    if (direction) this.#move(...direction.map((part) => part * STEP));
    else if (event.key === " ") this.#toggle();
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
  }

  #move(right, down) {
    this.pen = [within(this.pen[0] + right), within(this.pen[1] + down)];
    this.cursor.hidden = false;
    if (this.isDown) this.strokes.at(-1).points.push(this.pen);
    this.#changed();
  }

  #toggle() {
    this.isDown = !this.isDown;
    if (this.isDown) this.#startStroke(this.pen);
    this.say(this.isDown ? "Pen down" : "Pen lifted");
    this.#changed();
  }

  #changed() {
    paintDrawing(this.canvas, this);
    const [left, top] = this.pen.map((part) => `${part * 100}%`);
    Object.assign(this.cursor.style, { left, top });
    this.cursor.classList.toggle("down", this.isDown);
    this.hint.hidden = !this.isEmpty;
    this.onChange();
  }
}
