/** Requests to the server: sends the API key, repeats them after an outage, and turns problem documents into errors. */

const MAX_TRIES = 3;

export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.name = "Problem";
    this.status = status;
  }
}

/** The message of a problem document. */
async function message(response) {
  const problem = await response.json().catch(() => ({}));
  const details = (problem.errors ?? []).map(({ pointer, detail }) => `${detail} (${pointer})`);
  return [problem.title ?? `The server answered ${response.status}`, problem.detail ?? details.join("; ")].filter(Boolean).join(": ");
}

/** `path?query` relative to the page, which may be below a path prefix; a list repeats the parameter. */
export function address(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null && one !== undefined) search.append(name, one);
  }
  return path.replace(/^\//, "") + (search.size ? `?${search}` : "");
}

/** `send({path, query, body, signal})` -> the successful response; throws a Problem.
 *
 * `key.ask()` asks the user for a key, `recovery.wait()` waits until the server is ready again.
 */
export function makeSend(key, recovery) {
  return async function send({ path, query, body, signal }) {
    for (let attempt = 1; ; attempt++) {
      const used = key.value;
      const headers = used ? { Authorization: `Bearer ${used}` } : {};
      if (body !== undefined) headers["Content-Type"] = "application/json";
      const method = body === undefined ? "GET" : "POST";
      const response = await fetch(address(path, query), { method, headers, signal, body: body && JSON.stringify(body) }).catch((error) => {
        if (error.name === "AbortError") throw error;
        return null; // no response
      });
      if (response?.ok) return response;
      if (response?.status === 401) {
        await key.ask(used);
      } else if ((!response || response.status === 503) && attempt < MAX_TRIES) {
        await recovery.wait(Number(response?.headers.get("Retry-After")) || 1);
      } else {
        throw new Problem(response ? await message(response) : "The server does not response", response?.status ?? 0);
      }
    }
  };
}
