"use strict";
// How numbers are written.
window.written = (() => {
  // With a true minus sign; what rounds to zero has none.
  const fixed = (value) => {
    if (value === undefined || value === null) return "—";
    const text = value.toFixed(3);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  };
  const interval = (low, high) => `${fixed(low)}\u00a0to\u00a0${fixed(high)}`; // on one line
  return { fixed, interval };
})();
