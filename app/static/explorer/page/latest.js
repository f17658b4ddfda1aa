/** `latest(work, tell)`: a function that runs `work` with at most one call in flight. What is asked meanwhile waits, and
 * only the newest of it: there is no backlog. What `work` throws goes to `tell`. */
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
