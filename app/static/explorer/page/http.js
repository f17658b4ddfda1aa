/** Requests: problems in words, the key where one is asked for, another try where the server was away. */

const TRIES = 3;

export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.name = "Problem";
    this.status = status;
  }
}

/** The words of a problem document. */
async function words(answer) {
  const problem = await answer.json().catch(() => ({}));
  const details = (problem.errors ?? []).map(({ pointer, detail }) => `${detail} (${pointer})`);
  return [problem.title ?? `The server answered ${answer.status}`, problem.detail ?? details.join("; ")].filter(Boolean).join(": ");
}

/** `path?query` relative to the page, which may lie behind a path prefix; lists repeat their name. */
export function address(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null && one !== undefined) search.append(name, one);
  }
  return path.replace(/^\//, "") + (search.size ? `?${search}` : "");
}

/** `send({path, query, body, signal})` -> the answer of a request, which was successful.
 *
 * `key.ask()` asks the person for a key, `recovery.wait()` waits until the server is there again.
 */
export function makeSend(key, recovery) {
  return async function send({ path, query, body, signal }) {
    for (let attempt = 1; ; attempt++) {
      const used = key.value;
      const headers = used ? { Authorization: `Bearer ${used}` } : {};
      if (body !== undefined) headers["Content-Type"] = "application/json";
      const method = body === undefined ? "GET" : "POST";
      const answer = await fetch(address(path, query), { method, headers, signal, body: body && JSON.stringify(body) }).catch((error) => {
        if (error.name === "AbortError") throw error;
        return null; // nothing answered
      });
      if (answer?.ok) return answer;
      if (answer?.status === 401) {
        await key.ask(used);
      } else if ((!answer || answer.status === 503) && attempt < TRIES) {
        await recovery.wait(Number(answer?.headers.get("Retry-After")) || 1);
      } else {
        throw new Problem(answer ? await words(answer) : "The server does not answer", answer?.status ?? 0);
      }
    }
  };
}
