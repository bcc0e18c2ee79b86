// What the pages say, in English and Korean: word("pass"); elements with data-word or data-label get theirs.
"use strict";

const WORDS = {
  en: {
    go: "Go", review: "Review", watch: "Watch", runs: "Runs", language: "한국어",
    away: "The server does not answer. Nothing is lost: the game stands here, and goes on when the server is back.",
    board: "Board", game: "Game", toBeginning: "To the beginning", oneBack: "One move back", oneOn: "One move on",
    toEnd: "To the end", pass: "Pass", undo: "Undo", resign: "Resign", newGame: "New game", start: "Start",
    save: "Save as SGF", think: "Think aloud", candidates: "Best moves", territory: "Territory", policy: "Policy",
    numbers: "Move numbers", blackRate: "Black's win rate", score: "Score", move: "Move", rate: "Win rate",
    visits: "Visits", then: "Then", opponent: "Opponent", strength: "It thinks for", simulations: "simulations",
    seconds: "seconds", colour: "You play", black: "Black", white: "White", both: "Both sides", neither: "Neither",
    size: "Board size", komi: "Komi", rules: "Rules", handicap: "Handicap stones", analyst: "Who thinks aloud",
    keys: "Keys: arrows, Home, End; p passes, u takes back, t thinks aloud, c, o, l, n switch; Tab to the board, then arrows with"
      + " Shift and Enter to play.",
    toMove: "{} to move", thinking: "{} thinks", captures: "{} captured", time: "{} s", over: "The game is over: {}",
    resigned: "{} resigned", nothing: "nothing", found: "{} to move: what the search found",
    markDead: "Click on stones that are dead, or alive after all.", counted: "Counted: {}", you: "you",
    passed: "{} passed",
    dropRecord: "Drop a record (SGF) here, or choose one", orPaste: "or paste it", judge: "Who judges", begin: "Review",
    stop: "Stop", tryFromHere: "Try from here", tooLarge: "This record is too large: 9 MB at most",
    reviewed: "{} of {} positions, {} a second", done: "reviewed in {} s",
  },
  ko: {
    go: "바둑", review: "복기", watch: "관전", runs: "학습 기록", language: "English",
    away: "서버가 응답하지 않습니다. 잃은 것은 없습니다. 대국은 여기 남아 있고 서버가 돌아오면 이어집니다.",
    board: "바둑판", game: "대국", toBeginning: "처음으로", oneBack: "한 수 뒤로", oneOn: "한 수 앞으로",
    toEnd: "끝으로", pass: "통과", undo: "무르기", resign: "기권", newGame: "새 대국", start: "시작",
    save: "SGF로 저장", think: "생각 보기", candidates: "후보 수", territory: "집", policy: "정책",
    numbers: "수순", blackRate: "흑 승률", score: "집 차이", move: "수", rate: "승률",
    visits: "방문", then: "이후 수순", opponent: "상대", strength: "생각하는 양", simulations: "회 탐색",
    seconds: "초", colour: "내 돌", black: "흑", white: "백", both: "양쪽 모두", neither: "없음",
    size: "판 크기", komi: "덤", rules: "규칙", handicap: "접바둑 돌", analyst: "생각을 보여 줄 기사",
    keys: "자판: 화살표, Home, End; p 통과, u 무르기, t 생각 보기, c, o, l, n 표시; Tab으로 바둑판에 온 뒤 Shift+화살표와 Enter로 둡니다.",
    toMove: "{} 차례", thinking: "{} 생각 중", captures: "따낸 돌 {}", time: "{}초", over: "대국 종료: {}",
    resigned: "{} 기권", nothing: "없음", found: "{} 차례: 탐색 결과",
    markDead: "죽은 돌을 누르세요. 다시 누르면 산 돌이 됩니다.", counted: "계가: {}", you: "나",
    passed: "{} 통과",
    dropRecord: "기보(SGF)를 여기에 놓거나 고르세요", orPaste: "또는 붙여 넣으세요", judge: "평가할 기사", begin: "복기하기",
    stop: "멈추기", tryFromHere: "여기서 두어 보기", tooLarge: "기보가 너무 큽니다. 9 MB까지입니다",
    reviewed: "{1} 가운데 {0} 국면, 초당 {2}", done: "{}초에 복기했습니다",
  },
};

let language = localStorage.getItem("language") || (navigator.language.startsWith("ko") ? "ko" : "en");

function word(name, ...values) {
  let i = 0;
  return (WORDS[language][name] ?? name).replace(/\{(\d?)\}/g, (_, which) => values[which || i++]);
}

function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", word(element.dataset.label));
  const nav = document.getElementById("nav");
  if (!nav) return;
  nav.replaceChildren();
  for (const [path, name] of [["/", "go"], ["/review", "review"], ["/watch", "watch"]]) {
    const link = document.createElement("a");
    link.href = path;
    link.textContent = word(name);
    if (location.pathname === path) link.setAttribute("aria-current", "page");
    nav.append(link);
  }
  const other = document.createElement("button");
  other.textContent = word("language");
  other.lang = language === "en" ? "ko" : "en";
  other.onclick = () => {
    language = language === "en" ? "ko" : "en";
    localStorage.setItem("language", language);
    translate();
    document.dispatchEvent(new Event("language"));
  };
  nav.append(other);
}

document.addEventListener("DOMContentLoaded", translate);
