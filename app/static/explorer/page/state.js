/** The state of the page, in the query of its address, so that a link shares it and a reload keeps it. */

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
    /** The value of a parameter as text, or null. */
    get: (name) => values.get(name),

    /** Set values (null removes one) and, unless `isQuiet`, call the listeners of the parameters that changed. */
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

    /** Call `listener()` whenever one of `names` changes; returns a function that removes the listener. */
    onChange(names, listener) {
      const entry = { names, listener };
      listeners.add(entry);
      return () => listeners.delete(entry);
    },
  };
}
