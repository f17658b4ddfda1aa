/** Waits while the server is down or refuses requests: shows a banner, and polls until the server is ready. */

const MAX_SECONDS = 5; // between two polls

/** `banner` is the element to show meanwhile, `message` the element for its text. */
export function makeRecovery(banner, message) {
  let waiting = null;

  const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

  const isReady = () => fetch("health/ready", { cache: "no-store" }).then((answer) => answer.ok, () => false);

  async function recover(first) {
    message.textContent = navigator.onLine ? "The server is not answering. Trying again…" : "You are offline. Trying again…";
    banner.hidden = false;
    for (let seconds = first; ; seconds = Math.min(seconds * 1.5, MAX_SECONDS)) {
      await sleep(seconds);
      if (await isReady()) break;
    }
    banner.hidden = true;
    waiting = null;
  }

  return {
    /** Resolves when the server is ready, after at least `seconds`; concurrent calls share one wait. */
    wait: (seconds = 1) => (waiting ??= recover(seconds)),
  };
}
