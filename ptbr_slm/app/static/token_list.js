// A text as a list of its tokens, coloured by their probability: one stop of the Tab key, the arrows go on from
// there, Enter or a click chooses. Colour is not the only sign: improbable tokens are underlined, every token
// says its probability to the pointer and to a screen reader, and numbers can be shown.
(() => {
  const {say, el, number, percent, ordinal, named} = ptbr;
  const CLASSES = [0.5, 0.2, 0.05, 0.01, 0];  // least probability of each colour

  // onchoose(index, byKeyboard): of a piece; -1 for none.
  function tokenList(onchoose) {
    let pieces = [];
    let chosen = -1;
    const list = el("div", {
      class: "prob-text", role: "listbox", "aria-label": say("Tokens do texto", "Tokens of the text"), hidden: "",
    });
    const legend = legendOf(list);

    // Only what differs from what is shown is drawn anew: the focus stays where it is while a text grows.
    function show(next) {
      let same = 0;
      while (same < next.length && isSame(next[same], pieces[same])) same += 1;
      if (chosen >= same) choose(-1, false);
      while (list.children.length > same) list.lastChild.remove();
      list.append(...next.slice(same).map((piece, at) => option(piece, same + at)));
      list.hidden = legend.hidden = !next.length;
      if (!list.querySelector("[tabindex='0']")) list.firstChild?.setAttribute("tabindex", "0");
      pieces = next;
    }

    function choose(index, byKeyboard) {
      list.children[chosen]?.setAttribute("aria-selected", "false");
      list.children[index]?.setAttribute("aria-selected", "true");
      chosen = index;
      onchoose(index, byKeyboard);
    }

    function focus(index) {
      list.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
      list.children[index].setAttribute("tabindex", "0");
      list.children[index].focus();
    }

    list.addEventListener("click", ({target}) => {
      const index = [...list.children].indexOf(target.closest("[role=option]"));
      if (index < 0) return;
      focus(index);
      choose(index, false);
    });
    list.addEventListener("keydown", (event) => {
      const at = [...list.children].indexOf(event.target);
      const next = neighbour(list.children, at, event.key);
      if (event.key === "Enter" || event.key === " ") choose(at, true);
      else if (next !== null) focus(next);
      else return;
      event.preventDefault();
    });
    return {list, legend, show, focusChosen: () => focus(chosen)};
  }

  function option(piece, index) {
    const label = `${named(piece.text, piece.kind)}: ${described(piece)}`;
    const share = piece.logprob === null ? null : Math.exp(piece.logprob);
    const colour = share === null ? "none" : CLASSES.findIndex((least) => share >= least);
    return el("span", {
      class: `tok tok-${piece.kind || "text"} tok-p${colour}`, role: "option", tabindex: "-1",
      "aria-selected": "false", "aria-label": label, title: label, "data-share": share === null ? null : percent(share),
    }, piece.kind === "" ? piece.text.replaceAll("\n", "↵\n") : piece.text);
  }

  function legendOf(list) {
    const labels = [
      say("50 % ou mais", "50% or more"), say("20 a 50 %", "20 to 50%"), say("5 a 20 %", "5 to 20%"),
      say("1 a 5 %", "1 to 5%"), say("menos de 1 %", "less than 1%"),
    ];
    const numbers = el("input", {type: "checkbox", onchange: () => list.classList.toggle("prob-numbers")});
    return el("div", {class: "prob-legend", hidden: ""},
      el("span", {}, say("Probabilidade:", "Probability:")),
      ...labels.map((label, at) => el("span", {class: `tok tok-p${at}`}, label)),
      el("label", {}, numbers, say("mostrar números", "show numbers")));
  }

  const isSame = (one, other) => other && ["id", "text", "logprob"].every((name) => one[name] === other[name]);

  // The probability of a piece in words.
  function described({logprob, rank}) {
    if (logprob === null) return say("nada vem antes: sem probabilidade", "nothing comes before: no probability");
    const [share, place, bits] = [percent(Math.exp(logprob)), ordinal(rank), number(-logprob / Math.LN2, 1)];
    return say(`${share}, ${place} mais provável, ${bits} bits`, `${share}, ${place} most probable, ${bits} bits`);
  }

  // The index that a key goes to from index `at`: in a line, or to the nearest in the next one; null for others.
  function neighbour(drawn, at, key) {
    const last = drawn.length - 1;
    const step = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last}[key];
    if (step !== undefined) return Math.min(last, Math.max(0, step));
    const down = {ArrowDown: 1, ArrowUp: -1}[key];
    if (!down) return null;
    const from = drawn[at].getBoundingClientRect();
    let best = at;
    let least = Infinity;
    for (let other = at + down; other >= 0 && other <= last; other += down) {
      const to = drawn[other].getBoundingClientRect();
      const below = Math.round((down * (to.top - from.top)) / from.height);
      if (below < 1) continue;
      const distance = 1e4 * below + Math.abs(to.left - from.left);
      if (distance < least) [best, least] = [other, distance];
      else if (below > 2) break;
    }
    return best;
  }

  Object.assign(ptbr, {tokenList, described});
})();
