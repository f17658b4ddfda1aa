/** What panels are operated with. */

import { element } from "./dom.js";

/** A button with words. */
export const button = (text, onclick, properties = {}) => element("button", { type: "button", onclick, ...properties }, text);

/** A button that asks for a picture from a file, and the input behind it; `onFile(file)` may fail, which `tell` tells. */
export function fileButton(text, onFile, tell) {
  const input = element("input", { type: "file", hidden: true, accept: "image/png, image/jpeg, image/webp, image/gif" });
  input.onchange = () => {
    const [file] = input.files;
    input.value = "";
    if (file) onFile(file).catch(tell);
  };
  return [button(text, () => input.click()), input];
}

/** One choice of several, side by side: `{root, value}`; `options` are [value, text], `onChoose(value)` is called. */
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

/** A slider with its value in words: `{root, input, show(value)}`; `say(value)` gives the words. */
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

/** Call `listener` once, when `root` comes near what is seen. */
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

/** `listener(model)` now and after every choice, but not before `root` comes near what is seen. */
export function onModelWhenNear(root, app, listener) {
  whenNear(root, () => app.onModel(listener));
}
