/** Buttons, sliders and other controls of the panels. */

import { element } from "./dom.js";

/** A button with a text. */
export const button = (text, onclick, properties = {}) => element("button", { type: "button", onclick, ...properties }, text);

/** A button that opens an image file, and its input; errors of the asynchronous `onFile(file)` go to `tell`. */
export function fileButton(text, onFile, tell) {
  const input = element("input", { type: "file", hidden: true, accept: "image/png, image/jpeg, image/webp, image/gif" });
  input.onchange = () => {
    const [file] = input.files;
    input.value = "";
    if (file) onFile(file).catch(tell);
  };
  return [button(text, () => input.click()), input];
}

/** A choice of one option, side by side: `{root, inputs, value}`; `options` are [value, text] pairs. */
export function makeSegments(name, title, options, onChoose) {
  const inputs = options.map(([value], i) => element("input", { type: "radio", name, value, checked: !i, onchange: () => onChoose(value) }));
  const labels = options.map(([, text], i) => element("label", {}, inputs[i], element("span", {}, text)));
  const root = element("fieldset", { className: "segments" }, element("legend", { className: "unseen" }, title), ...labels);
  return {
    root,
    inputs,
    get value() {
      return inputs.find(({ checked }) => checked).value;
    },
    set value(chosen) {
      for (const input of inputs) input.checked = input.value === chosen;
    },
  };
}

/** A slider with its value as text: `{root, input, show(value)}`; `say(value)` returns the text. */
export function makeRange(title, { min, max, step, say, onInput }) {
  const input = element("input", { type: "range", min, max, step });
  const output = element("output", { attributes: { "aria-hidden": "true" } });
  const root = element("label", { className: "range" }, element("span", {}, title), input, output);
  function show(value) {
    input.value = value;
    output.textContent = say(value);
    input.setAttribute("aria-valuetext", say(value));
  }
  input.oninput = () => {
    show(Number(input.value));
    onInput(Number(input.value));
  };
  return { root, input, show };
}

/** Call `listener` once, when `root` comes within 400 pixels of the visible part of the page. */
export function whenNear(root, listener) {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      observer.disconnect();
      listener();
    },
    { rootMargin: "400px" },
  );
  observer.observe(root);
}

/** Call `listener(model)` after every choice of a model, but not before `root` is near the visible part of the page. */
export function onModelWhenNear(root, app, listener) {
  whenNear(root, () => app.onModel(listener));
}
