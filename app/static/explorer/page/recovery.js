/** What happens while the server is gone or refuses: the page says so, asks whether it is ready, and goes on. */

const MOST_SECONDS = 5;

/** `banner` is shown meanwhile, `message` in it says what is the matter. */
export function makeRecovery(banner, message) {
  let waiting = null;

  const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

  const isReady = () => fetch("health/ready", { cache: "no-store" }).then((answer) => answer.ok, () => false);

  async function recover(first) {
    message.textContent = navigator.onLine ? "The server is not answering. Trying again…" : "You are offline. Trying again…";
    banner.hidden = false;
    for (let seconds = first; ; seconds = Math.min(seconds * 1.5, MOST_SECONDS)) {
      await sleep(seconds);
      if (await isReady()) break;
    }
    banner.hidden = true;
    waiting = null;
  }

  return {
    /** Until the server is ready, at least so many seconds; one wait is shared by all who wait. */
    wait: (seconds = 1) => (waiting ??= recover(seconds)),
  };
}
