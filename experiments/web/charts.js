// What pages about games of Go have in common: candidates as discs, and the graph of win rates.
"use strict";

const Charts = (() => {
  const percent = (x, digits = 1) => `${(100 * x).toFixed(digits)} %`;
  const lead = (score) => score === null || score === undefined ? "" : `${score >= 0 ? "B" : "W"}+${Math.abs(score).toFixed(1)}`;

  // Candidates of a side, "B" or "W", as Board.draw has discs.
  function discs(candidates, toPlay) {
    const most = candidates.length ? candidates[0].visits : 1, own = toPlay === "B" ? 1 : -1;
    return candidates.map((one, i) => ({
      move: one.move, best: i === 0, share: one.visits / most, candidate: one,
      text: Math.round(100 * (own > 0 ? one.winrate : 1 - one.winrate)),
      under: one.score === null || one.score === undefined ? "" : ((own * one.score > 0 ? "+" : "") + (own * one.score).toFixed(1)),
    }));
  }

  // what: {rates, scores: of each move or null, at: which one is seen, dots: [{at, black}], go(at), label(at)}
  function graph(svg, what) {
    const element = Board.element, width = 600, height = 150, last = Math.max(what.rates.length - 1, 1);
    const x = (i) => 5 + (width - 10) * i / last, y = (rate) => 6 + (height - 12) * (1 - rate);
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.append(element("rect", {x: 0, y: 0, width, height, class: "ground"}));
    const range = Math.max(5, ...what.scores.map((score) => Math.abs(score ?? 0)));
    const path = (values) => {
      let text = "", open = false;
      values.forEach((value, i) => {
        if (value === null || value === undefined) { open = false; return; }
        text += `${open ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
        if (!open) text += "h0.01";  // a single value is a dot
        open = true;
      });
      return text;
    };
    svg.append(element("line", {x1: 0, x2: width, y1: height / 2, y2: height / 2, class: "middle"}));
    const shares = what.scores.map((score) => score === null || score === undefined ? null : 0.5 + score / range / 2);
    svg.append(element("path", {d: path(shares), class: "score"}));
    svg.append(element("path", {d: path(what.rates), class: "rate"}));
    for (const dot of what.dots) {
      if (typeof what.rates[dot.at] !== "number") continue;
      svg.append(element("circle", {cx: x(dot.at), cy: y(what.rates[dot.at]), r: 5, class: dot.black ? "dot dot-black" : "dot dot-white"}));
    }
    svg.append(element("line", {x1: x(what.at), x2: x(what.at), y1: 0, y2: height, class: "here"}));
    const follow = (event) => {
      const box = svg.getBoundingClientRect();
      const share = ((event.clientX - box.left) / box.width * width - 5) / (width - 10);
      what.go(Math.min(what.rates.length - 1, Math.max(0, Math.round(share * last))));
    };
    svg.onpointerdown = (event) => { svg.setPointerCapture(event.pointerId); follow(event); };
    svg.onpointermove = (event) => { if (event.buttons) follow(event); };
    svg.setAttribute("aria-valuemin", 0);
    svg.setAttribute("aria-valuenow", what.at);
    svg.setAttribute("aria-valuemax", what.rates.length - 1);
    svg.setAttribute("aria-valuetext", what.label(what.at));
  }

  return {percent, lead, discs, graph};
})();
