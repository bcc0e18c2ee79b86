// The page of a reviewed game: step through it, see what the search saw, and what each move cost.
"use strict";

function review(game) {
  const nodes = game.nodes, $ = (id) => document.getElementById(id);
  const children = nodes.map(() => []);
  nodes.forEach((node) => { if (node.parent >= 0) children[node.parent].push(node.node); });
  const main = [0];
  while (children[main[main.length - 1]].length) main.push(children[main[main.length - 1]][0]);
  const broken = main.findIndex((index) => !nodes[index].board.length);
  if (broken >= 0) main.length = Math.max(broken, 1);
  const mistakes = Object.fromEntries(game.mistakes.map((mistake) => [mistake.node, mistake]));
  const names = {B: game.black || "Black", W: game.white || "White"};
  const colour = {B: "Black", W: "White"};
  const went = {};  // node -> the child that was looked at last
  let now = 0, line = null;

  const {percent, lead} = Charts;
  const cost = (node) => percent(node.winrate_loss) + (node.points_loss === null ? "" : `, ${node.points_loss.toFixed(1)} points`);

  function add(parent, name, text, kind) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    parent.append(made);
    return made;
  }

  function go(index, keep) {
    if (index === undefined || index < 0 || !nodes[index].board.length) return;
    now = index;
    if (!keep) line = null;
    for (let i = index; nodes[i].parent >= 0; i = nodes[i].parent) went[nodes[i].parent] = i;
    show();
  }

  const next = (index) => went[index] ?? children[index][0];

  function numbers() {
    const found = {};
    for (let i = now; i >= 0; i = nodes[i].parent) {
      const {move, number} = nodes[i];
      if (move && !(move in found)) found[move] = number;
    }
    return found;
  }

  function preview(candidate) {
    line = candidate ? {moves: candidate.pv, black: nodes[now].to_play === "B"} : null;
    board();
  }

  function board() {
    const node = nodes[now], on = (id) => $(id).checked, following = next(now);
    Board.draw($("board"), {
      rows: node.board, last: node.move, line,
      numbers: on("numbers") ? numbers() : null,
      ownership: on("territory") ? node.ownership : null,
      policy: on("policy") ? node.policy : null,
      discs: on("candidates") ? Charts.discs(node.candidates, node.to_play) : [],
      played: on("candidates") && following !== undefined ? nodes[following].move : null,
      onDisc: (disc) => preview(disc && disc.candidate),
      onPoint: (vertex) => go(children[now].find((child) => nodes[child].move === vertex)),
    });
    $("board").setAttribute("aria-label",
      `Board after move ${node.number}${node.move ? `, ${colour[node.colour]} ${node.move}` : ""}`);
  }

  function show() {
    const node = nodes[now];
    board();
    $("where").textContent = `Move ${node.number} of ${nodes[main[main.length - 1]].number}` + (node.main ? "" : " (variation)");
    const said = $("said");
    said.replaceChildren();
    if (node.move) add(said, "p", `${colour[node.colour]} ${node.move}`, "move");
    if (node.winrate !== null) {
      const black = node.winrate >= 0.5;
      add(said, "p", `${black ? "Black" : "White"} ${percent(Math.max(node.winrate, 1 - node.winrate))} ${lead(node.score)}`
        + ` (${node.visits} visits)`);
    }
    if (node.winrate_loss !== null && node.rank === 0) add(said, "p", "The best move found.");
    else if (node.winrate_loss !== null && node.winrate_loss >= 0.005) add(said, "p", `It cost ${cost(node)}.`);
    const mistake = mistakes[now];
    if (mistake) add(said, "p", `Better: ${mistake.pv.slice(0, 10).join(" ")}`, "better");
    if (node.comment) add(said, "p", node.comment, "comment");
    if (children[now].length > 1) {
      const row = add(said, "p", "Continues: ");
      for (const child of children[now]) {
        add(row, "button", nodes[child].move || "set-up").onclick = () => go(child);
      }
    }
    const body = $("moves");
    body.replaceChildren();
    const own = node.to_play === "B";
    for (const one of node.candidates) {
      const row = add(body, "tr");
      const cells = [one.move, percent(own ? one.winrate : 1 - one.winrate), lead(one.score), one.visits,
        percent(one.prior, 0), one.pv.slice(1, 8).join(" ")];
      cells.forEach((text, i) => add(row, "td", text, i === 5 ? "line" : ""));
      row.tabIndex = 0;
      row.onpointerenter = row.onfocus = () => preview(one);
      row.onpointerleave = row.onblur = () => preview(null);
    }
    $("turn").textContent = node.candidates.length ? `${colour[node.to_play]} to move: what the search found` : "";
    graph();
    for (const button of $("mistakes").querySelectorAll("button")) {
      const here = Number(button.dataset.node);
      button.setAttribute("aria-current", here === now || nodes[here].parent === now ? "true" : "false");
    }
  }

  function graph() {
    let at = now;
    while (!main.includes(at)) at = nodes[at].parent;
    const rates = main.map((index) => nodes[index].winrate);
    Charts.graph($("graph"), {
      rates, scores: main.map((index) => nodes[index].score), at: main.indexOf(at), go: (i) => go(main[i]),
      dots: main.flatMap((index, i) => mistakes[index] ? [{at: i, black: nodes[index].colour === "B"}] : []),
      label: (i) => typeof rates[i] === "number" ? `Move ${i}, Black ${percent(rates[i])}` : `Move ${i}`,
    });
  }

  function beside(step) {
    const siblings = nodes[now].parent < 0 ? [now] : children[nodes[now].parent];
    go(siblings[(siblings.indexOf(now) + step + siblings.length) % siblings.length]);
  }

  function nextMistake(step) {
    const places = Object.keys(mistakes).map(Number).sort((a, b) => a - b);
    const found = step > 0 ? places.find((i) => i > now) : places.reverse().find((i) => i < now);
    go(found);
  }

  function far(steps) {
    let to = now;
    for (let i = 0; i < Math.abs(steps); i++) {
      const further = steps > 0 ? next(to) : nodes[to].parent;
      if (further === undefined || further < 0 || !nodes[further].board.length) break;
      to = further;
    }
    go(to);
  }

  const keys = {
    ArrowLeft: () => far(-1), ArrowRight: () => far(1), PageUp: () => far(-10), PageDown: () => far(10),
    Home: () => go(0), End: () => far(nodes.length), ArrowUp: () => beside(-1), ArrowDown: () => beside(1),
    n: () => nextMistake(1), p: () => nextMistake(-1),
  };
  document.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    if (event.target.matches("textarea, select, input:not([type=checkbox]):not([type=file])")) return;
    event.preventDefault();
    keys[event.key]();
  };
  for (const [id, act] of [["first", keys.Home], ["back", keys.ArrowLeft], ["forward", keys.ArrowRight], ["end", keys.End],
    ["worse", keys.n]]) $(id).onclick = act;
  for (const id of ["candidates", "territory", "policy", "numbers"]) $(id).onchange = board;

  $("title").textContent = `${names.B} – ${names.W}`;
  const facts = [
    `Black ${game.black || "?"} ${game.black_rank}`, `White ${game.white || "?"} ${game.white_rank}`,
    game.result && `Result ${game.result}`, `Komi ${game.komi}`, game.rules && `Rules ${game.rules}`, game.date, game.event,
    `Analysed by ${game.agent}` + (game.simulations ? `, ${game.simulations} simulations a position` : ""),
  ];
  for (const fact of facts) if (fact) add($("facts"), "li", fact.trim());
  const notes = game.complete ? game.notes : [...game.notes, "The analysis was stopped before its end."];
  for (const note of notes) add($("notes"), "li", note);
  for (const side of ["B", "W"]) {
    const one = game.summary[side], row = add($("summary"), "tr");
    const cells = [colour[side], one.moves, one.moves ? percent(one.best / one.moves, 0) : "", percent(one.winrate_loss),
      one.points_loss === null ? "" : one.points_loss.toFixed(1)];
    cells.forEach((text) => add(row, "td", text));
  }
  for (const mistake of game.mistakes) {
    const item = add($("mistakes"), "li"), button = add(item, "button");
    button.dataset.node = mistake.node;
    add(button, "strong", `${mistake.number}. ${colour[mistake.colour]} ${mistake.move}`);
    add(button, "span", ` cost ${cost(mistake)}; better ${mistake.better}`);
    button.onclick = () => go(nodes[mistake.node].parent);
  }
  if (!game.mistakes.length) add($("mistakes"), "li", "None that cost 5 % or more.");
  if (!nodes.some((node) => node.ownership)) $("territory").parentElement.hidden = true;
  if (!nodes.some((node) => node.policy)) $("policy").parentElement.hidden = true;
  const asked = Number(location.hash.slice(1));  // page.html#44 opens at a node
  if (asked > 0 && asked < nodes.length && nodes[asked].board.length) go(asked);
  else show();
  return {game, now: () => nodes[now]};
}

{
  const data = document.getElementById("data");  // of a page on its own
  if (data) review(JSON.parse(data.textContent));
}
