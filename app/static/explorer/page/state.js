/** The state of the page, in the query of its address: it can be shared, and is there again after a reload. */

const DELAY = 200; // milliseconds; browsers refuse more than about a hundred changes of the address in ten seconds

export function makeState() {
  const values = new URLSearchParams(location.search);
  const listeners = new Set();
  let timer = 0;

  function write() {
    timer = 0;
    const query = values.toString().replaceAll("%2C", ",");
    history.replaceState(null, "", `${location.pathname}${query && `?${query}`}${location.hash}`);
  }

  return {
    /** The value of a name as text, or null. */
    get: (name) => values.get(name),

    /** Take these values, null removes one, and tell who listens to a name that changed, unless it is quiet. */
    set(changes, isQuiet = false) {
      const changed = Object.keys(changes).filter((name) => changes[name]?.toString() !== values.get(name)?.toString());
      for (const name of changed) {
        if (changes[name] === null || changes[name] === undefined) values.delete(name);
        else values.set(name, changes[name]);
      }
      if (!changed.length) return;
      timer ||= setTimeout(write, DELAY);
      if (isQuiet) return;
      for (const { names, listener } of [...listeners]) if (names.some((name) => changed.includes(name))) listener();
    },

    /** Call `listener()` whenever one of `names` changes; the answer ends that. */
    onChange(names, listener) {
      const entry = { names, listener };
      listeners.add(entry);
      return () => listeners.delete(entry);
    },
  };
}
