/** `latest(work, tell)`: a function that runs `work` one call at a time. Of the calls made meanwhile only the newest one
 * is run afterwards, so that no backlog builds up. Errors of `work` go to `tell`. */
export function latest(work, tell) {
  let isRunning = false;
  let waiting = null;
  return async (...args) => {
    waiting = args;
    if (isRunning) return;
    isRunning = true;
    while (waiting) {
      const next = waiting;
      waiting = null;
      await Promise.resolve(next).then((given) => work(...given)).catch(tell);
    }
    isRunning = false;
  };
}
