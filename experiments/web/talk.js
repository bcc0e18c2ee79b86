// A conversation with the server over one WebSocket: the newest question alone is answered, and asked again when the
// server was away. talk = Talk("/talk/go", (up) => ...); talk.ask({do: "look", ...}, (answer) => ...); talk.send(control).
"use strict";

function Talk(path, onState) {
  const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
  let socket = null, number = 0, question = null, listener = null, wait = 250;

  function connect() {
    socket = new WebSocket(address);
    socket.onopen = () => {
      wait = 250;
      onState(true);
      if (question) socket.send(JSON.stringify(question));
    };
    socket.onmessage = (event) => {
      const answer = JSON.parse(event.data);
      if (listener && answer.id === number) listener(answer);
    };
    socket.onclose = () => {
      onState(false);
      setTimeout(connect, wait);
      wait = Math.min(2 * wait, 4000);
    };
  }

  function send(message) {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  }

  connect();
  return {
    ask(message, then) {
      question = {...message, id: ++number};
      listener = then;
      send(question);
    },
    done() { question = null; },  // it is answered: do not ask it again
    send,
  };
}
