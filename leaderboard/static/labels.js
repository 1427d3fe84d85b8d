"use strict";
// Names beside points, as boxes [left, top, right, bottom] in pixels: where one has no room close by, a line leads to it.
window.placeLabels = (() => {
  const HEIGHT = 16;
  const GAP = 9; // between a point and its own name
  const CLEAR = 7; // between a name and the points of others, which it must not seem to belong to
  const RINGS = [GAP, 18, 30, 44, 60, 80];
  const DIRECTIONS = [[1, 0], [-1, 0], [1, -1], [-1, -1], [1, 1], [-1, 1], [0, -1], [0, 1]];
  const overlap = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const grown = ([left, top, right, bottom], by) => [left - by, top - by, right + by, bottom + by];
  const near = (value, low, high) => Math.max(low, Math.min(high, value));

  const boxAt = ([x, y], long, [right, down], ring) => {
    const away = right && down ? ring * 0.75 : ring;
    const left = right > 0 ? x + away : right < 0 ? x - away - long : x - long / 2;
    const top = y + away * down + (down - 1) * (HEIGHT / 2);
    return [left, top, left + long, top + HEIGHT];
  };

  // The line from a point to the nearest place on a box, as small boxes along it.
  const leader = ([x, y], box) => {
    const [endX, endY] = [near(x, box[0], box[2]), near(y, box[1], box[3])];
    const steps = Math.ceil(Math.hypot(endX - x, endY - y) / 3);
    return Array.from({ length: steps }, (_, i) => [x + ((endX - x) * i) / steps, y + ((endY - y) * i) / steps]).map(([a, b]) => [a - 1, b - 1, a + 1, b + 1]);
  };

  // Args: names to place, the most important first, each with its point `at`, width `long` and owner `name`;
  // points with `at` and `name`; other boxes that stay free; width and height of the frame.
  return (wanted, points, others, [wide, high]) => {
    const dots = points.map(({ at: [x, y], name }) => ({ name, box: grown([x, y, x, y], 6) }));
    const taken = [...others];
    const free = (box, name) => box[0] >= 2 && box[2] <= wide - 2 && box[1] >= 0 && box[3] <= high && !taken.some((other) => overlap(box, other)) && !dots.some((dot) => overlap(grown(box, dot.name === name ? 0 : CLEAR), dot.box));
    const clear = (line, name) => !line.some((step) => placed.some((one) => overlap(step, one.box)) || dots.some((dot) => dot.name !== name && overlap(step, dot.box)));
    const placed = [];
    for (const one of wanted) {
      const found = RINGS.flatMap((ring) => DIRECTIONS.map((direction) => ({ box: boxAt(one.at, one.long, direction, ring), led: ring > GAP })))
        .find(({ box, led }) => free(box, one.name) && (!led || clear(leader(one.at, box), one.name)));
      if (!found) continue; // hovering tells
      const line = found.led ? leader(one.at, found.box) : [];
      taken.push(found.box, ...line);
      placed.push({ ...one, ...found, end: [near(one.at[0], found.box[0], found.box[2]), near(one.at[1], found.box[1], found.box[3])] });
    }
    return placed;
  };
})();
