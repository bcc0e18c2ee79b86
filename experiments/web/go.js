// A game of Go on the page. The whole game is here and goes with each question, so the server remembers nothing: a page
// that is loaded anew, another server, a move taken back are all the same to it. Its address names it: #g=...
"use strict";

(() => {
  const $ = (id) => document.getElementById(id), HANDICAP = {0: "0", 2: "2", 3: "3", 4: "4", 5: "5", 6: "6", 7: "7", 8: "8", 9: "9"};
  const RULES = ["tromp-taylor", "chinese", "aga", "new-zealand"], KEPT = 20;
  const name = (side) => word(side === "B" ? "black" : "white");
  let players = [], position = null, analysis = null, said = "", wrong = "", ended = null, line = null, busy = false;
  let timeStarted = performance.now(), cursor = null, dead = null, ownership = null;

  // -- the game, and where it is kept ---------------------------------------------------------------------------------

  const fresh = () => ({
    height: 9, width: 9, komi: 7.5, rules: "tromp-taylor", black: [], white: [], first: "B", moves: [], at: 0, mine: "B",
    player: "alphazero:9x9", analyst: "alphazero:9x9", limit: 400, unit: "simulations", resigned: "", seconds: [0, 0], rates: {},
  });
  const asked = new URLSearchParams(location.hash.slice(1));
  const id = asked.get("g") || Math.random().toString(36).slice(2, 10);
  let game = read(id) || fresh();
  history.replaceState(null, "", `#g=${id}`);

  function read(which) {
    try {
      const found = JSON.parse(localStorage.getItem(`go-${which}`));
      return found && Array.isArray(found.moves) ? {...fresh(), ...found} : null;
    } catch { return null; }
  }

  function keep() {
    const order = (JSON.parse(localStorage.getItem("go-order") || "[]")).filter((each) => each !== id);
    order.push(id);
    for (const old of order.splice(0, Math.max(0, order.length - KEPT))) localStorage.removeItem(`go-${old}`);
    localStorage.setItem("go-order", JSON.stringify(order));
    localStorage.setItem(`go-${id}`, JSON.stringify(game));
  }

  const seen = () => game.moves.slice(0, game.at);
  const question = (what, more) => {
    const {height, width, komi, rules, black, white, first} = game;
    return {do: what, game: {height, width, komi, rules, black, white, first, moves: seen()}, ...more};
  };
  const side = (at) => (at % 2 === 0) === (game.first === "B") ? "B" : "W";
  const isMine = (colour) => game.mine.includes(colour);
  const last = () => game.at === game.moves.length;

  // -- what is asked --------------------------------------------------------------------------------------------------

  const talk = Talk("/talk/go", (up) => { $("away").hidden = up; });

  // Each state of the page wants one thing, and a new question ends the one before.
  function look() {
    keep();
    analysis = null;
    line = null;
    talk.ask(question("look"), (answer) => {
      if (answer.error) { refuse(answer.error); return; }
      wrong = "";
      take(answer.position);
      goOn();
    });
    show();
  }

  function take(found) {
    position = found;
    if (!found.over) { dead = null; ownership = null; }
    timeStarted = performance.now();
    show();
  }

  function goOn() {
    talk.done();
    busy = false;
    if (!position || game.resigned && last()) { show(); return; }
    if (position.over) { count(); return; }
    if (last() && !isMine(position.to_play)) { move(); return; }
    if ($("think").checked) think();
  }

  function move() {
    busy = true;
    show();
    const limit = {player: game.player, [game.unit]: Number(game.limit) || 1};
    talk.ask(question("move", limit), (answer) => {
      if (answer.error) { busy = false; refuse(answer.error, false); return; }
      if (!answer.move) return;
      busy = false;
      const mover = position.to_play;
      game.seconds[mover === "B" ? 0 : 1] += answer.seconds;
      if (answer.move === "resign") {
        game.resigned = mover;
        keep();
        take(answer.position);
        goOn();
        return;
      }
      game.moves.push(answer.move);
      game.at++;
      keep();
      take(answer.position);
      goOn();
    });
  }

  function think() {
    talk.ask(question("analyse", {player: game.analyst, visits: 20000}), (answer) => {
      if (answer.error) { refuse(answer.error, false); return; }
      if (answer.analysis) {
        analysis = answer.analysis;
        game.rates[seen().join(" ")] = [analysis.winrate, analysis.score];
      }
      if (answer.done) { talk.done(); keep(); }
      show();
    });
  }

  function count(mine) {
    talk.ask(question("score", mine ? {dead: mine} : {player: game.analyst}), (answer) => {
      if (answer.error) { refuse(answer.error, false); return; }
      if (!answer.result) return;
      talk.done();
      ({dead, ownership} = answer);
      ended = answer.result;
      show();
    });
  }

  function refuse(text, back = true) {
    wrong = text;
    talk.done();
    if (back && game.at > 0 && position && last()) {  // a move that the rules forbid
      game.moves.pop();
      game.at--;
      keep();
    }
    show();
  }

  // -- what a person does ---------------------------------------------------------------------------------------------

  function play(vertex) {
    if (!position || position.over || busy || game.resigned && last()) return;
    if (!isMine(position.to_play) && last()) return;
    game.seconds[position.to_play === "B" ? 0 : 1] += (performance.now() - timeStarted) / 1000;
    if (game.moves[game.at] !== vertex) game.moves.length = game.at;
    if (game.at === game.moves.length) game.moves.push(vertex);
    game.resigned = "";
    game.at++;
    look();
  }

  function point(vertex) {
    if (!position) return;
    if (position.over) { toggleDead(vertex); return; }
    const [column, row] = Board.place(vertex, game.height);
    if (position.legal[row * game.width + column] === "1") play(vertex);
    else { wrong = `${vertex}: ${position.rows[row][column] === "." ? "✗" : "●"}`; show(); }
  }

  function toggleDead(vertex) {
    const [column, row] = Board.place(vertex, game.height), colour = position.rows[row][column];
    if (colour === "." || !dead) return;
    const chain = [vertex], found = new Set(chain);
    for (const each of chain) {
      const [c, r] = Board.place(each, game.height);
      for (const [x, y] of [[c - 1, r], [c + 1, r], [c, r - 1], [c, r + 1]]) {
        if (x < 0 || y < 0 || x >= game.width || y >= game.height || position.rows[y][x] !== colour) continue;
        const beside = Board.vertex(x, y, game.height);
        if (!found.has(beside)) { found.add(beside); chain.push(beside); }
      }
    }
    const alive = dead.includes(vertex);
    count(alive ? dead.filter((each) => !found.has(each)) : [...dead, ...chain]);
  }

  function go(at) {
    const to = Math.min(game.moves.length, Math.max(0, at));
    if (to === game.at) return;
    game.at = to;
    look();
  }

  function undo() {
    if (!game.at) return;
    game.resigned = "";
    let to = game.at - 1;
    while (to > 0 && game.mine && !isMine(side(to))) to--;  // back to where it is my turn
    game.moves.length = game.at = to;
    look();
  }

  function resign() {
    if (!position || position.over || game.resigned) return;
    game.resigned = busy ? (position.to_play === "B" ? "W" : "B") : position.to_play;
    game.moves.length = game.at;
    look();
  }

  function begin() {
    const size = Number($("size").value), stones = Number($("handicap").value);
    const mine = $("mine").value;
    game = {...fresh(), height: size, width: size, komi: Number($("komi").value), rules: $("rules").value, mine,
      player: $("player").value, analyst: $("analyst").value, limit: Number($("limit").value), unit: $("unit").value};
    if (stones > 1) {
      game.black = handicap(size, stones);
      game.first = "W";
    }
    position = analysis = dead = ownership = ended = null;
    wrong = "";
    look();
  }

  function handicap(size, stones) {
    const edge = size >= 13 ? 3 : 2, low = edge, high = size - 1 - edge, middle = (size - 1) / 2;
    const corners = [[low, high], [high, low], [high, high], [low, low]];
    const sides = [[low, middle], [high, middle], [middle, high], [middle, low]];
    const odd = stones % 2 === 1 && stones > 4, places = [...corners, ...sides].slice(0, odd ? stones - 1 : stones);
    if (odd) places.push([middle, middle]);
    return places.map(([column, row]) => Board.vertex(column, row, size));
  }

  function save() {
    const letter = (vertex) => {
      const place = Board.place(vertex, game.height);
      return place ? String.fromCharCode(97 + place[0], 97 + place[1]) : "";
    };
    const stones = (names, points) => points.length ? names + points.map((each) => `[${letter(each)}]`).join("") : "";
    const clean = (text) => String(text).replace(/[\\\]]/g, "\\$&");
    const result = game.resigned ? `${game.resigned === "B" ? "W" : "B"}+R` : ended || "";
    const names = ["B", "W"].map((colour) => clean(isMine(colour) ? word("you") : game.player));
    const size = game.height === game.width ? game.height : `${game.width}:${game.height}`;
    let text = `(;FF[4]GM[1]CA[UTF-8]SZ[${size}]KM[${game.komi}]RU[${clean(game.rules)}]PB[${names[0]}]PW[${names[1]}]`;
    text += (result ? `RE[${result}]` : "") + stones("AB", game.black) + stones("AW", game.white);
    if (game.first === "W") text += "PL[W]";
    game.moves.forEach((each, i) => { text += `;${side(i)}[${letter(each)}]`; });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text + ")\n"], {type: "application/x-go-sgf"}));
    link.download = "game.sgf";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // -- what is drawn --------------------------------------------------------------------------------------------------

  function preview(candidate) {
    line = candidate ? {moves: candidate.pv, black: position.to_play === "B"} : null;
    board();
  }

  function numbers() {
    const found = {};
    seen().forEach((each, i) => { found[each] = i + 1; });
    return found;
  }

  function board() {
    if (!position) return;
    const on = (which) => $(which).checked;
    Board.draw($("board"), {
      rows: position.rows, last: position.last, line,
      numbers: on("numbers") ? numbers() : null,
      ownership: position.over ? ownership : on("territory") && analysis ? analysis.ownership : null,
      policy: on("policy") && analysis ? analysis.policy : null,
      discs: on("candidates") && analysis ? Charts.discs(analysis.candidates, position.to_play) : [],
      played: !last() && game.moves[game.at] !== "pass" ? game.moves[game.at] : null,
      onPoint: point,
      onDisc: (disc) => preview(disc && disc.candidate),
    });
    for (const each of dead || []) {
      const [column, row] = Board.place(each, game.height), x = column + 1, y = row + 1;
      $("board").append(Board.element("path", {d: `M${x - 0.25} ${y - 0.25}l.5 .5m0 -.5l-.5 .5`, class: "dead"}));
    }
    if (cursor) $("board").append(Board.element("circle", {cx: cursor[0] + 1, cy: cursor[1] + 1, r: 0.5, class: "cursor"}));
    $("board").setAttribute("aria-label", `${word("board")}: ${position.rows.map((row, i) =>
      [...row].map((sign, c) => sign === "." ? "" : `${sign === "X" ? name("B") : name("W")} ${Board.vertex(c, i, game.height)}`)
        .filter(Boolean).join(", ")).filter(Boolean).join(", ") || word("nothing")}`);
  }

  function status() {
    if (wrong) return wrong;
    if (game.resigned && last()) return word("resigned", name(game.resigned));
    if (!position) return "";
    if (position.over) return word("over", ended || position.result);
    const turn = word(busy ? "thinking" : "toMove", name(position.to_play));
    return seen()[game.at - 1] === "pass" ? `${word("passed", name(side(game.at - 1)))}. ${turn}` : turn;
  }

  function show() {
    board();
    $("status").textContent = status();
    $("status").classList.toggle("wrong", Boolean(wrong));
    const sides = $("sides");
    sides.replaceChildren();
    for (const [i, colour] of ["B", "W"].entries()) {
      const term = document.createElement("dt"), fact = document.createElement("dd");
      term.textContent = name(colour);
      if (position && position.to_play === colour && !position.over) term.className = "turn";
      const taken = position ? position.captures[i] : 0;
      fact.textContent = [isMine(colour) ? word("you") : game.player, word("captures", taken),
        word("time", Math.round(game.seconds[i]))].join(", ");
      sides.append(term, fact);
    }
    $("counting").hidden = !(position && position.over && dead);
    if (ended) $("counted").textContent = word("counted", ended);
    $("turn").textContent = analysis && analysis.candidates.length ? word("found", name(position.to_play)) : "";
    const body = $("moves");
    body.replaceChildren();
    for (const one of analysis ? analysis.candidates : []) {
      const row = document.createElement("tr"), own = position.to_play === "B";
      const cells = [one.move, Charts.percent(own ? one.winrate : 1 - one.winrate), Charts.lead(one.score), one.visits,
        Charts.percent(one.prior, 0), one.pv.slice(1, 8).join(" ")];
      cells.forEach((text, i) => {
        const cell = document.createElement("td");
        cell.textContent = text;
        if (i === 5) cell.className = "line";
        row.append(cell);
      });
      row.onpointerenter = () => preview(one);
      row.onpointerleave = () => preview(null);
      body.append(row);
    }
    const rates = [], scores = [];
    for (let i = 0; i <= game.moves.length; i++) {
      const known = game.rates[game.moves.slice(0, i).join(" ")] || [null, null];
      rates.push(known[0]);
      scores.push(known[1] ?? null);
    }
    Charts.graph($("graph"), {rates, scores, dots: [], at: game.at, go, label: (i) =>
      `${word("move")} ${i}` + (rates[i] === null ? "" : `, ${word("blackRate")} ${Charts.percent(rates[i])}`)});
    for (const [which, off] of [["undo", !game.at], ["first", !game.at], ["back", !game.at], ["forward", last()], ["end", last()],
      ["pass", !position || position.over || busy], ["resign", !position || position.over || Boolean(game.resigned)]]) $(which).disabled = off;
  }

  // -- the form -------------------------------------------------------------------------------------------------------

  function options(select, entries, chosen) {
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value, false, String(value) === String(chosen))));
  }

  function fill() {
    options($("player"), players.map((each) => [each.name, each.name]), game.player);
    options($("analyst"), players.filter((each) => each.name !== "random" && each.kind !== "program")
      .map((each) => [each.name, each.name]), game.analyst);
    options($("rules"), RULES.map((each) => [each, each]), game.rules);
    options($("handicap"), Object.entries(HANDICAP), game.black.length);
    $("mine").value = game.mine;
    $("limit").value = game.limit;
    $("unit").value = game.unit;
    sizes(game.height);
    $("komi").value = game.komi;
  }

  function sizes(wanted) {
    const most = (which) => (players.find((each) => each.name === which) || {}).size || 19;
    const largest = most($("player").value), range = [];
    for (let i = 3; i <= largest; i++) range.push([i, `${i} × ${i}`]);
    options($("size"), range, Math.min(wanted, largest));
    for (const option of $("analyst").options) option.disabled = most(option.value) < Number($("size").value);
    if ($("analyst").selectedOptions[0]?.disabled) {
      const able = [...$("analyst").options].find((option) => !option.disabled);
      if (able) $("analyst").value = able.value;
    }
  }

  $("player").onchange = () => {
    const chosen = players.find((each) => each.name === $("player").value) || {};
    sizes(chosen.size || Number($("size").value));
    if (chosen.komi !== undefined) $("komi").value = chosen.komi;
    if ([...$("analyst").options].some((option) => option.value === chosen.name)) $("analyst").value = chosen.name;
  };
  $("size").onchange = () => sizes(Number($("size").value));
  $("form").onsubmit = (event) => { event.preventDefault(); begin(); };
  $("save").onclick = save;

  // -- keys and buttons -----------------------------------------------------------------------------------------------

  const flip = (which) => () => { $(which).click(); };
  const keys = {
    ArrowLeft: () => go(game.at - 1), ArrowRight: () => go(game.at + 1), Home: () => go(0), End: () => go(game.moves.length),
    p: () => play("pass"), u: undo, t: flip("think"), c: flip("candidates"), o: flip("territory"), l: flip("policy"), n: flip("numbers"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=number]")) return;
    if (document.activeElement === $("board") && (event.shiftKey && event.key.startsWith("Arrow") || event.key === "Enter")) {
      event.preventDefault();
      const middle = [Math.floor(game.width / 2), Math.floor(game.height / 2)];
      if (event.key === "Enter" && cursor) point(Board.vertex(...cursor, game.height));
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key] || [0, 0];
      const [column, row] = cursor || middle;
      cursor = [Math.min(game.width - 1, Math.max(0, column + step[0])), Math.min(game.height - 1, Math.max(0, row + step[1]))];
      board();
      return;
    }
    if (event.target.matches("button, input") && (event.key === "Enter" || event.key === " ")) return;
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  for (const [which, act] of [["first", keys.Home], ["back", keys.ArrowLeft], ["forward", keys.ArrowRight], ["end", keys.End],
    ["pass", keys.p], ["undo", undo], ["resign", resign], ["begin", () => $("form").scrollIntoView({block: "center"})]]) $(which).onclick = act;
  for (const which of ["candidates", "territory", "policy", "numbers"]) $(which).onchange = show;
  $("think").onchange = look;
  document.addEventListener("language", show);

  // A game that another page hands over: the review, for a try from one of its moves.
  const handed = sessionStorage.getItem("go-handed");
  if (handed) {
    sessionStorage.removeItem("go-handed");
    game = {...fresh(), ...JSON.parse(handed)};
  }
  document.addEventListener("DOMContentLoaded", () => {
    fetch("/api/players").then((answer) => answer.json()).then((found) => { players = found; fill(); });
    look();
  });
})();
