// An agent plays, and this page shows what it sees, what it thinks its actions are worth, and what it does.
"use strict";

(() => {
  const NS = "http://www.w3.org/2000/svg", SPEEDS = ["0.25", "0.5", "1", "2", "4", "16", "0"];
  const KEYS = {ArrowUp: "UP", ArrowDown: "DOWN", ArrowLeft: "LEFT", ArrowRight: "RIGHT", " ": "FIRE"};
  const panes = [];
  let agents = [];

  function add(parent, name, kind, text) {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function draw(parent, name, attributes, kind) {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (kind) made.setAttribute("class", kind);
    parent.append(made);
    return made;
  }

  const number = (x) => Math.abs(x) >= 1000 ? x.toFixed(0) : x.toPrecision(3).replace(/\.?0+$/, "");

  async function decoded(text) {
    const image = new Image();
    image.src = `data:image/png;base64,${text}`;
    await image.decode();
    return image;
  }

  // What is held on the keyboard -> the action of that name, or of as much of it as there is: UP, LEFT, FIRE -> UPLEFTFIRE.
  function actionOf(held, names) {
    const upper = names.map((name) => name.toUpperCase().replace(/ /g, ""));
    const find = (parts) => upper.indexOf(parts.join(""));
    const parts = ["UP", "DOWN", "RIGHT", "LEFT", "FIRE"].filter((part) => held.has(part));
    if (!parts.length) return Math.max(find(["NOOP"]), find(["STAY"]));
    for (const left of [parts, parts.filter((part) => part !== "FIRE"), ...parts.map((part) => [part])]) {
      if (left.length && find(left) >= 0) return find(left);
    }
    return -1;
  }

  function Pane(last) {
    const root = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    document.getElementById("panes").append(root);
    const at = (name) => root.querySelector(`.${name}`), canvas = at("game"), context = canvas.getContext("2d");
    let socket = null, id = 0, world = null, rows = [], now = null, over = false, paused = false, salient = false;
    let screen = null, overlay = null, sent = null, episodes = [], recording = false;
    const held = new Set();

    for (const agent of agents) {
      const option = add(at("agent"), "option", "", `${agent.game} · ${agent.name}${agent.score === null ? "" : ` · ${number(agent.score)}`}`);
      option.value = agent.name;
    }
    if (last) at("agent").selectedIndex = Math.min(panes.length, agents.length - 1);
    if (!agents.length) say("there are no agents yet: train one by python -m experiments dqn", true);

    function say(text, wrong) {
      at("said").textContent = text;
      at("said").classList.toggle("wrong", Boolean(wrong));
    }

    // Before the first answer, a control would be taken for a new wish and end the one before.
    function control(message) {
      if (socket && world && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    }

    function enable() {
      for (const name of ["pause", "step", "over", "salient", "again", "record"]) at(name).disabled = !world;
      at("filmed").hidden = !world?.video;
    }

    function press(name, on) {
      at(name).setAttribute("aria-pressed", String(on));
    }

    function watch() {
      if (!agents.length) return;
      if (!socket || socket.readyState > WebSocket.OPEN) {
        socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/talk/watch`);
        socket.onopen = ask;
        socket.onmessage = (event) => hear(JSON.parse(event.data));
        socket.onclose = () => { world = null; enable(); say("the server is gone; Watch begins anew", true); };
      } else if (socket.readyState === WebSocket.OPEN) ask();
    }

    function ask() {
      world = screen = overlay = now = null;
      [over, paused, salient, recording, sent] = [false, false, false, false, null];
      ["over", "pause", "salient", "record"].forEach((name) => press(name, false));
      enable();
      say("loading ...");
      socket.send(JSON.stringify({do: "watch", id: ++id, agent: at("agent").value, seed: Number(at("seed").value) || 0, speed: Number(at("speed").value)}));
    }

    function hear(answer) {
      if (answer.id !== undefined && answer.id !== id) return;
      if (answer.error) say(answer.error, true);
      if (answer.world) begin(answer.world);
      if (answer.q) tell(answer);
      if ("saliency" in answer) lay(answer.saliency);
      if ("recording" in answer) {
        recording = Boolean(answer.recording);
        press("record", recording);
        if (recording) say(`recording ${answer.recording}`);
        else if (answer.saved?.length) say(`saved ${answer.saved.join(" and ")}`);
      }
    }

    function begin(told) {
      world = told;
      episodes = [];
      screen = overlay = null;
      enable();
      say(`${world.game}, ${world.kind}, ${world.protocol}, random actions ${number(100 * world.epsilon)} %, seed ${world.seed}`);
      at("actions").replaceChildren();
      at("actions").classList.toggle("spread", world.distribution !== "none");
      at("meaning").textContent = world.distribution === "none" ? "" : " Areas are distributions of returns, lines their means.";
      rows = world.actions.map((name, action) => {
        const button = add(at("actions"), "button");
        add(button, "span", "", `${action < 10 ? `${action} ` : ""}${name === String(action) ? "" : name}`);
        const svg = draw(button, "svg", {viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true"});
        const value = add(button, "span", "value");
        button.addEventListener("pointerdown", () => { if (over) hold(action); });
        for (const end of ["pointerup", "pointercancel"]) button.addEventListener(end, () => { if (over) follow(); });
        button.addEventListener("click", (event) => { if (over && event.detail === 0) hold(action); });
        return {button, svg, value};
      });
    }

    function tell(answer) {
      const before = now;
      now = answer;
      const frames = answer.count;
      const of = world;  // what comes late may be of another game
      if (answer.pictures) decoded(answer.pictures).then((image) => {
        if (of !== world) return;
        screen = {image, count: frames, height: image.height / frames, began: performance.now(), shown: -1};
        requestAnimationFrame(paint);
      }, () => {});
      at("screen").hidden = !answer.pictures && Boolean(answer.obs);
      const seen = at("seen");
      seen.hidden = !answer.seen;
      if (answer.seen) {
        seen.src = `data:image/png;base64,${answer.seen}`;
        if (!before?.seen) seen.onload = () => seen.classList.toggle("tall", seen.naturalHeight > seen.naturalWidth);
        if (!answer.pictures) decoded(answer.seen).then((image) => {
          if (of !== world) return;
          const width = image.width / world.stack;
          screen = {image, count: 1, height: image.height, left: image.width - width, width, shown: -1, began: 0};
          requestAnimationFrame(paint);
        }, () => {});
      }
      if (answer.last) episodes.push(answer.return);
      if (!("saliency" in answer) && !salient) overlay = null;
      values(answer);
      if (answer.obs) features(answer.obs[answer.obs.length - 1], Array.isArray(answer.saliency) ? answer.saliency : null);
      else at("numbers").replaceChildren();
      const mean = episodes.length ? `; ${episodes.length} ended, mean ${number(episodes.reduce((a, b) => a + b, 0) / episodes.length)}` : "";
      const by = answer.by === "person" ? " · you play" : "";
      at("count").textContent = `episode ${answer.episode}, step ${answer.step}, return ${number(answer.return)}${mean}${by}`;
    }

    // Frames one after the other, over the time until the next moment.
    function paint(time) {
      if (!screen || !world) return;
      const speed = Number(at("speed").value), each = speed ? 1000 / (world.rate * speed * screen.count) : 0;
      const index = paused || !each ? screen.count - 1 : Math.min(screen.count - 1, Math.max(0, Math.floor((time - screen.began) / each)));
      if (index !== screen.shown) {
        const {image, height} = screen, width = screen.width || image.width;
        if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
        context.imageSmoothingEnabled = false;
        context.drawImage(image, screen.left || 0, index * height, width, height, 0, 0, width, height);
        context.imageSmoothingEnabled = true;
        if (overlay) context.drawImage(overlay, 0, 0, width, height);
        screen.shown = index;
      }
      if (index < screen.count - 1) requestAnimationFrame(paint);
    }

    function lay(saliency) {
      if (typeof saliency === "string") decoded(saliency).then((image) => { overlay = image; again(); }, () => {});
      else { overlay = null; again(); }
      if (Array.isArray(saliency) && now?.obs) features(now.obs[now.obs.length - 1], saliency);
    }

    function again() {
      if (screen) { screen.shown = -1; requestAnimationFrame(paint); }
    }

    function values(answer) {
      const low = Math.min(0, ...answer.q), high = Math.max(0, ...answer.q), range = high - low || 1;
      const place = (x) => 100 * (x - low) / range, drawn = answer.returns ? distribution(answer) : null;
      rows.forEach(({button, svg, value}, action) => {
        const q = answer.q[action];
        value.textContent = number(q);
        button.className = "";
        button.classList.toggle("best", action === answer.greedy);
        button.classList.toggle("chosen", action === answer.choice);
        button.classList.toggle("random", action === answer.choice && answer.random);
        button.classList.toggle("forbidden", Boolean(answer.allowed && !answer.allowed[action]));
        const words = action === answer.choice ? answer.random ? ", taken at random" : ", taken" : "";
        button.setAttribute("aria-label", `${world.actions[action]}: ${number(q)}${action === answer.greedy ? ", best" : ""}${words}`);
        svg.replaceChildren();
        if (drawn) { drawn(svg, action); return; }
        draw(svg, "rect", {x: Math.min(place(0), place(q)), y: 1, width: Math.abs(place(q) - place(0)), height: 8}, "bar");
        draw(svg, "line", {x1: place(0), x2: place(0), y1: 0, y2: 10}, "zero");
      });
    }

    // How one action's distribution is drawn: C51's probabilities as columns, quantiles as a density.
    function distribution(answer) {
      const {support, probabilities, quantiles} = answer.returns;
      if (probabilities) {
        const most = Math.max(...probabilities.flat()), width = 100 / probabilities[0].length;
        return (svg, action) => {
          probabilities[action].forEach((p, i) => draw(svg, "rect", {x: i * width, width, y: 10 - 10 * p / most, height: 10 * p / most}, "mass"));
          mean(svg, (answer.q[action] - support[0]) / (support[1] - support[0]));
        };
      }
      const all = quantiles.flat(), low = Math.min(...all), range = Math.max(...all) - low || 1, bins = 50;
      const counts = quantiles.map((row) => {
        const found = new Array(bins).fill(0);
        for (const x of row) found[Math.min(bins - 1, Math.floor(bins * (x - low) / range))] += 1;
        return found;
      });
      const most = Math.max(...counts.flat());
      return (svg, action) => {
        counts[action].forEach((n, i) => { if (n) draw(svg, "rect", {x: 2 * i, width: 2, y: 10 - 10 * n / most, height: 10 * n / most}, "mass"); });
        mean(svg, (answer.q[action] - low) / range);
      };
    }

    const mean = (svg, share) => draw(svg, "line", {x1: 100 * share, x2: 100 * share, y1: 0, y2: 10}, "mean");

    function features(numbers, weights) {
      const table = at("numbers");
      table.replaceChildren();
      const head = add(add(table, "thead"), "tr");
      ["Feature", "Value", ...(weights ? ["Saliency"] : [])].forEach((name) => add(head, "th", "", name));
      const body = add(table, "tbody");
      numbers.slice(0, 64).forEach((x, i) => {
        const row = add(body, "tr");
        add(row, "td", "", String(i));
        add(row, "td", "", x.toFixed(3));
        if (weights) draw(draw(add(row, "td"), "svg", {viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": number(weights[i])}),
          "rect", {x: 0, y: 0, height: 10, width: 100 * weights[i]}, "bar");
      });
    }

    // -- controls --------------------------------------------------------------------------------------------------------

    function hold(action) {
      if (action >= 0 && action !== sent) control({do: "hold", action: sent = action});
    }

    function follow() {
      hold(actionOf(held, world.actions));
    }

    const does = {
      pause() { paused = !paused; press("pause", paused); control({do: paused ? "pause" : "go"}); again(); },
      step() { paused = true; press("pause", true); control({do: "step"}); },
      over() {
        over = !over;
        press("over", over);
        held.clear();
        sent = null;
        if (!over) control({do: "hand back"});
        else hold(Math.max(0, actionOf(held, world.actions)));
      },
      salient() { salient = !salient; press("salient", salient); control({do: "saliency", on: salient}); },
      again() { say("a new game begins ..."); control({do: "reset", seed: Number(at("seed").value) || 0}); },
      record() {
        recording = !recording;  // as is wanted; the server's answer may take a moment
        press("record", recording);
        control({do: "record", on: recording, video: at("film").checked});
      },
      speed() { control({do: "speed", speed: Number(at("speed").value)}); },
      faster(by) {
        const index = SPEEDS.indexOf(at("speed").value) + by;
        if (SPEEDS[index]) { at("speed").value = SPEEDS[index]; does.speed(); }
      },
    };
    for (const name of ["pause", "step", "over", "salient", "again", "record"]) at(name).addEventListener("click", () => { if (world) does[name](); });
    at("speed").addEventListener("change", () => does.speed());
    at("watch").addEventListener("click", watch);
    at("agent").addEventListener("change", watch);
    enable();

    return {
      does, watch,
      get live() { return Boolean(world); },
      get over() { return over; },
      key(key, down) {
        if (KEYS[key]) { held[down ? "add" : "delete"](KEYS[key]); follow(); return true; }
        if (/^[0-9]$/.test(key) && Number(key) < world.actions.length) { if (down) hold(Number(key)); else follow(); return true; }
        return false;
      },
      release() { held.clear(); if (over && world) follow(); },
    };
  }

  function another() {
    panes.push(Pane(true));
    document.getElementById("panes").classList.toggle("single", panes.length === 1);
    document.getElementById("another").hidden = panes.length > 1;
    panes[panes.length - 1].watch();
  }

  const SHORT = {p: "pause", ".": "step", s: "salient", n: "again"};

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const live = panes.filter((pane) => pane.live), playing = live.find((pane) => pane.over);
    if (playing && playing.key(event.key, true)) { event.preventDefault(); return; }
    if (event.repeat) return;
    if (event.key === "t" && live.length) (playing || live[0]).does.over();
    else if (event.key === "+" || event.key === "-") live.forEach((pane) => pane.does.faster(event.key === "+" ? 1 : -1));
    else if (SHORT[event.key]) live.forEach((pane) => pane.does[SHORT[event.key]]());
    else return;
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    const playing = panes.find((pane) => pane.live && pane.over);
    if (playing && playing.key(event.key, false)) event.preventDefault();
  });
  window.addEventListener("blur", () => panes.forEach((pane) => pane.release()));

  document.getElementById("another").addEventListener("click", another);
  fetch("/api/agents").then((answer) => answer.json()).then((found) => { agents = found; another(); },
    () => { document.querySelector("h1").textContent = "The server does not answer: load this page anew"; });
})();
