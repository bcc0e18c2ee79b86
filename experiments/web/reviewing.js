// Records that are dropped or pasted are reviewed by the server; the review is drawn as its page on its own is.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id), LARGEST = 9e6;
  const talk = Talk("/talk/review", (up) => { $("away").hidden = up; });
  let reviewed = null, began = 0;

  function say(text) { $("status").textContent = text; }

  function begin(text) {
    if (text.length > LARGEST) { say(word("tooLarge")); return; }
    began = performance.now();
    working(true);
    const asked = {do: "review", sgf: text, player: $("player").value, simulations: Number($("simulations").value)};
    talk.ask(asked, (answer) => {
      if (answer.error) { talk.done(); working(false); say(answer.error); return; }
      if (answer.analysis) { talk.done(); working(false); draw(answer.analysis); return; }
      $("progress").value = answer.done / Math.max(answer.total, 1);
      const seconds = (performance.now() - began) / 1000;
      say(word("reviewed", Math.floor(answer.done), answer.total, (answer.done / seconds).toFixed(1)));
    });
  }

  function working(on) {
    $("progress").hidden = !on;
    $("stop").disabled = !on;
    $("save").disabled = $("retry").disabled = on || !reviewed;
  }

  async function draw(game) {
    const page = await (await fetch("/web/review.html")).text();  // our own file: no record's text is in it
    $("found").innerHTML = page;
    document.activeElement?.blur();  // so that keys step through the game
    reviewed = review(game);
    working(false);
    say(word("done", game.seconds));
  }

  $("form").onsubmit = (event) => { event.preventDefault(); begin($("text").value); };
  $("stop").onclick = () => {
    talk.ask({do: "sgf"}, () => talk.done());  // another question ends the review
    working(false);
    say("");
  };
  $("save").onclick = () => talk.ask({do: "sgf"}, (answer) => {
    talk.done();
    if (answer.error) { say(answer.error); return; }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([answer.sgf], {type: "application/x-go-sgf"}));
    link.download = "reviewed.sgf";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  $("retry").onclick = () => {
    const node = reviewed.now(), rows = node.board, height = rows.length, width = rows[0].length, game = reviewed.game;
    const of = (sign) => rows.flatMap((row, r) => [...row].flatMap((each, c) => each === sign ? [Board.vertex(c, r, height)] : []));
    const handed = {height, width, komi: game.komi, black: of("X"), white: of("O"), first: node.to_play, mine: node.to_play,
      player: $("player").value, analyst: $("player").value};
    sessionStorage.setItem("go-handed", JSON.stringify(handed));
    location.href = "/";
  };

  async function read(file) {
    if (file.size > LARGEST) { say(word("tooLarge")); return; }
    $("text").value = await file.text();
    begin($("text").value);
  }
  $("file").onchange = () => { if ($("file").files[0]) read($("file").files[0]); };
  document.ondragover = (event) => event.preventDefault();
  document.ondrop = (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
  };

  fetch("/api/players").then((answer) => answer.json()).then((players) => {
    const able = players.filter((each) => each.name !== "random" && each.kind !== "program");
    $("player").replaceChildren(...able.map((each) => new Option(each.name, each.name, false, each.name === "alphazero:9x9")));
  });
})();
