/** The request behind an image, as curl and as Python, ready to copy. */

import { address } from "./http.js";

const SHELL_KEY = `-H "Authorization: Bearer $VAE_API_KEY"`;

const url = ({ path, query }) => new URL(address(path, query), document.baseURI.split(/[?#]/)[0]).href;

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A request as a curl command. */
export function asCurl(request, hasKey) {
  const parts = [`curl -s ${quoted(url(request))}`];
  if (hasKey) parts.push(SHELL_KEY);
  if (request.body !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(request.body))}`);
  if (request.file) parts.push(`-o ${request.file}`);
  return parts.join(" \\\n  ");
}

/** JSON as a Python literal. */
const literal = (value) =>
  Array.isArray(value)
    ? `[${value.map(literal).join(", ")}]`
    : value && typeof value === "object"
      ? `{${Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${literal(part)}`).join(", ")}}`
      : ({ true: "True", false: "False", null: "None" })[String(value)] && typeof value !== "string"
        ? ({ true: "True", false: "False", null: "None" })[String(value)]
        : JSON.stringify(value);

/** A request as a Python program. */
export function asPython(request, hasKey) {
  const base = url({ path: request.path });
  const given = Object.entries(request.query ?? {}).filter(([, value]) => value !== null && value !== undefined);
  const lines = [hasKey && `import os\n`, `import requests\n`, `\nanswer = requests.${request.body === undefined ? "get" : "post"}(\n    ${JSON.stringify(base)},\n`];
  if (given.length) lines.push(`    params=${literal(Object.fromEntries(given))},\n`);
  if (request.body !== undefined) lines.push(`    json=${literal(request.body)},\n`);
  if (hasKey) lines.push(`    headers={"Authorization": f"Bearer {os.environ['VAE_API_KEY']}"},\n`);
  lines.push(`)\nanswer.raise_for_status()\n`);
  lines.push(request.file ? `with open(${JSON.stringify(request.file)}, "wb") as file:\n    file.write(answer.content)` : "print(answer.json())");
  return lines.filter(Boolean).join("");
}

/** `addCode(element, request)` puts a small button into `element` that opens `dialog` with the request's code.
 *
 * A second call replaces the request. `request` is {path, query, body, file}: `file` is the name of the image file.
 */
export function makeCode(dialog, key) {
  const requests = new WeakMap();
  const blocks = { curl: asCurl, python: asPython };

  function open(element) {
    for (const [name, write] of Object.entries(blocks)) {
      dialog.querySelector(`[data-code=${name}] code`).textContent = write(requests.get(element), Boolean(key.value));
    }
    dialog.showModal();
  }

  for (const button of dialog.querySelectorAll("[data-copy]")) {
    button.onclick = async () => {
      const text = dialog.querySelector(`[data-code=${button.dataset.copy}] code`).textContent;
      const isCopied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
      button.textContent = isCopied ? "Copied" : "Select it and copy";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    };
  }

  return function addCode(element, request) {
    if (!requests.has(element)) {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "code-button", textContent: "code", title: "The request as curl and Python" });
      button.setAttribute("aria-label", "Show the request as code");
      button.onclick = () => open(element);
      element.append(button);
    }
    requests.set(element, request);
  };
}
