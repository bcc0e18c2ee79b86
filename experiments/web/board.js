// A Go board drawn as SVG: stones, candidate moves as discs, ownership, policy, a line of play as numbered stones.
// Board.draw(svg, {rows: [".XO...", ...], last: "D4", ...}) draws all of it anew; points are named as in GTP.
"use strict";

const Board = (() => {
  const NS = "http://www.w3.org/2000/svg", LETTERS = "ABCDEFGHJKLMNOPQRST";

  function element(name, attributes, text) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // "D4" -> [column, row] from the top left; null for a pass.
  function place(vertex, height) {
    const column = LETTERS.indexOf(vertex[0]), row = height - Number(vertex.slice(1));
    return column < 0 || !(row >= 0 && row < height) ? null : [column, row];
  }

  function vertex(column, row, height) {
    return LETTERS[column] + (height - row);
  }

  function stars(size) {
    if (size < 7) return size % 2 && size > 3 ? [(size - 1) / 2] : [];
    const edge = size >= 13 ? 3 : 2;
    return size % 2 && size >= 9 ? [edge, (size - 1) / 2, size - 1 - edge] : [edge, size - 1 - edge];
  }

  /* what: {
       rows,                            strings of . X O
       last: vertex,                    marked on its stone
       numbers: {vertex: number},       written on stones
       ownership, policy: [values],     from the top left
       discs: [{move, text, under, best, share}],   candidate moves; share of the visits, 0 to 1
       played: vertex,                  what the game went on with, marked on an empty point
       line: {moves: [vertex], black},  numbered stones of a variation, beginning with Black's or White's
       onPoint(vertex), onDisc(disc or null)
     } */
  function draw(svg, what) {
    const height = what.rows.length, width = what.rows[0].length;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `-0.5 -0.5 ${width + 2} ${height + 2}`);
    const at = (column, row) => [column + 1, row + 1];
    svg.append(element("rect", {x: -0.5, y: -0.5, width: width + 2, height: height + 2, rx: 0.2, class: "wood"}));
    for (let c = 0; c < width; c++) {
      svg.append(element("line", {x1: c + 1, x2: c + 1, y1: 1, y2: height, class: "grid"}));
      for (const y of [0.2, height + 0.8]) svg.append(element("text", {x: c + 1, y, class: "edge"}, LETTERS[c]));
    }
    for (let r = 0; r < height; r++) {
      svg.append(element("line", {x1: 1, x2: width, y1: r + 1, y2: r + 1, class: "grid"}));
      for (const x of [0.2, width + 0.8]) svg.append(element("text", {x, y: r + 1, class: "edge"}, height - r));
    }
    for (const c of stars(width)) for (const r of stars(height)) {
      svg.append(element("circle", {cx: c + 1, cy: r + 1, r: 0.09, class: "star"}));
    }
    const line = {};
    if (what.line) {
      what.line.moves.forEach((move, i) => {
        if (!(move in line)) line[move] = {number: i + 1, black: (i % 2 === 0) === what.line.black};
      });
    }
    const highest = Math.max(...(what.policy || []), 1e-9);
    for (let r = 0; r < height; r++) for (let c = 0; c < width; c++) {
      const [x, y] = at(c, r), name = vertex(c, r, height), sign = what.rows[r][c];
      const policy = what.policy && what.policy[r * width + c], owner = what.ownership && what.ownership[r * width + c];
      if (policy > 0.001) {
        const opacity = Math.min(1, 0.15 + 0.75 * Math.sqrt(policy / highest));
        svg.append(element("rect", {x: x - 0.5, y: y - 0.5, width: 1, height: 1, class: "policy", opacity}));
      }
      if (sign !== ".") {
        svg.append(element("circle", {cx: x, cy: y, r: 0.47, class: sign === "X" ? "black" : "white"}));
      } else if (name in line) {
        const kind = line[name].black ? "black" : "white";
        svg.append(element("circle", {cx: x, cy: y, r: 0.47, class: `${kind} ghost`}));
        svg.append(element("text", {x, y, class: `on-${kind}`}, line[name].number));
      }
      if (owner && Math.abs(owner) > 0.1) {
        const side = 0.34 * Math.sqrt(Math.abs(owner)), kind = owner > 0 ? "owner-black" : "owner-white";
        svg.append(element("rect", {x: x - side / 2, y: y - side / 2, width: side, height: side, class: kind}));
      }
      const number = what.numbers && what.numbers[name];
      if (sign !== "." && number) {
        svg.append(element("text", {x, y, class: sign === "X" ? "on-black" : "on-white"}, number));
      } else if (sign !== "." && name === what.last) {
        svg.append(element("circle", {cx: x, cy: y, r: 0.2, class: sign === "X" ? "last-black" : "last-white"}));
      }
    }
    for (const disc of what.line ? [] : what.discs || []) {
      const where = place(disc.move, height);
      if (!where || what.rows[where[1]][where[0]] !== ".") continue;
      const [x, y] = at(...where), group = element("g", {class: disc.best ? "disc best" : "disc"});
      group.append(element("circle", {cx: x, cy: y, r: 0.47, "fill-opacity": 0.45 + 0.55 * Math.sqrt(disc.share)}));
      group.append(element("text", {x, y: disc.under ? y - 0.12 : y, class: "upper"}, disc.text));
      if (disc.under) group.append(element("text", {x, y: y + 0.22, class: "lower"}, disc.under));
      if (what.onDisc) {
        group.addEventListener("pointerenter", () => what.onDisc(disc));
      }
      svg.append(group);
    }
    const played = what.played && !what.line && place(what.played, height);
    if (played) {
      const [x, y] = at(...played);
      svg.append(element("circle", {cx: x, cy: y, r: 0.49, class: "played"}));
    }
    if (what.onPoint) {
      svg.onclick = (event) => {
        const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        const column = Math.round(spot.x) - 1, row = Math.round(spot.y) - 1;
        if (column >= 0 && row >= 0 && column < width && row < height) what.onPoint(vertex(column, row, height));
      };
    }
    if (what.onDisc) svg.onpointerleave = () => what.onDisc(null);
  }

  return {draw, element, place, vertex};
})();
