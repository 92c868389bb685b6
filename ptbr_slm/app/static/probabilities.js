// The tab Probabilidades: the tokens of a text, coloured by their probability, with their alternatives.
//
// The server sends the pieces of a text (token_pieces.py) as the value of a gr.HTML; whoever chooses an
// alternative sends back ids. The text, what Desfazer returns to, and whether something runs are known here
// alone: the server remembers nothing of a visitor.
(() => {
  const {say, el, number, percent, ordinal, shown, named, described, lines, box, write, enable} = ptbr;
  const MOST_UNDONE = 20;

  function probabilities(element, props, trigger, watch) {
    let pieces = [];
    let base = [];  // of the turn that runs: what its pieces are appended to
    let past = [];
    let turn = 0;  // what comes for an earlier one is not shown
    let busy = false;
    let request = null;
    const tokens = ptbr.tokenList(choose);
    const view = build(element, tokens);

    // Ver probabilidades. Null while something runs: a double click reads once.
    function read(text) {
      if (busy) return null;
      begin([], say("Lendo o texto…", "Reading the text…"));
      return {turn, text};
    }

    // An alternative was chosen: the text up to it, and on from there.
    function goOn(index, [id, logprob, text, kind]) {
      if (busy) return;
      const actual = pieces[index];
      const rank = actual.top.findIndex(([other]) => other === id) + 1;
      const next = id === actual.id ? actual : {...actual, id, logprob, text, kind, rank};
      begin([...pieces.slice(0, index), next], say("Continuando…", "Continuing…"));
      request = {turn, ids: base.map((piece) => piece.id)};
      show(base);
      trigger("select");
    }

    function begin(kept, what) {
      past = [...past, {pieces, text: box("prob-texto")?.value ?? ""}].slice(-MOST_UNDONE);
      turn += 1;
      base = kept;
      setBusy(true);
      view.figures.textContent = what;
    }

    // The value: a line of JSON for each part that has come.
    function take(value) {
      if (!busy) return;
      const parts = lines(value).filter((part) => part.turn === turn);
      if (!parts.length) return;
      base = parts.reduce((kept, part) => (part.base ? respelled(kept, part.base) : kept), base);
      show([...base, ...parts.flatMap((part) => part.pieces)]);
      view.line.textContent = parts.at(-1).line ?? "";
      if (parts.at(-1).ended) settle();
    }

    // The turn is over, well or not; what came of it stays.
    function settle() {
      if (!busy) return;
      turn += 1;
      const before = past.at(-1).pieces;
      if (before !== pieces) write("prob-texto", textOf(pieces));
      if (before === pieces || !before.length) past.pop();
      setBusy(false);
      view.figures.textContent = figures(pieces);
    }

    function undo() {
      if (busy || !past.length) return;
      const before = past.pop();
      show(before.pieces);
      write("prob-texto", before.text);
      setBusy(false);
      view.line.textContent = "";
      view.figures.textContent = figures(pieces);
    }

    function setBusy(on) {
      busy = on;
      for (const id of ["prob-ver", "prob-trazer"]) enable(id, !on);
      enable("prob-parar", on);
      enable("prob-desfazer", !on && past.length > 0);
      if (box("prob-texto")) box("prob-texto").readOnly = on;
      element.classList.toggle("prob-busy", on);
      view.figures.setAttribute("aria-busy", String(on));
    }

    function show(next) {
      pieces = next;
      tokens.show(next);
      view.note.textContent = next.length ? noteOn(next[0]) : "";
    }

    // A token was chosen: its alternatives.
    function choose(index, byKeyboard) {
      view.alternatives.hidden = index < 0;
      if (index < 0) return;
      const piece = pieces[index];
      view.alternatives.replaceChildren(
        el("h3", {}, say("No lugar de ", "In place of "), ...shown(piece.text, piece.kind)),
        el("p", {}, described(piece)),
        ...(piece.logprob === null ? [] : [ranking(piece, (other) => goOn(index, other)), el("p", {}, say(
          "Escolha uma alternativa, e o modelo continua o texto a partir dela.",
          "Choose an alternative, and the model continues the text from it."))]),
      );
      view.alternatives.scrollIntoView({block: "nearest"});
      if (byKeyboard) view.alternatives.querySelector("button:not([disabled])")?.focus();
    }

    view.alternatives.addEventListener("keydown", (event) => {
      if (event.key === "Escape") tokens.focusChosen();
    });

    function takeFromText() {
      if (busy) return;
      write("prob-texto", box("texto")?.value ?? "");
      if (box("prob-texto").value) document.getElementById("prob-ver").click();
    }

    watch("value", () => take(props.value));
    setBusy(false);
    show([]);
    ptbr.prob = {read, settle, undo, takeFromText, request: () => request};
  }

  // The empty view.
  function build(element, tokens) {
    const alternatives = el("section", {
      class: "prob-alternatives", "aria-label": say("Alternativas", "Alternatives"), hidden: "",
    });
    const figures = el("p", {class: "prob-figures", role: "status", "aria-live": "polite"});
    const line = el("p", {class: "prob-line"});
    const note = el("p", {class: "prob-line"});
    const body = el("div", {class: "prob-body"}, tokens.list, alternatives);
    element.replaceChildren(figures, line, tokens.legend, body, note);
    return {figures, line, note, alternatives};
  }

  // The alternatives of a piece as buttons, with the token of the text among them or below them.
  function ranking(piece, onchoose) {
    const rows = piece.top.map((other, at) => [at + 1, other]);
    if (!piece.top.some(([id]) => id === piece.id)) {
      rows.push([piece.rank, [piece.id, piece.logprob, piece.text, piece.kind]]);
    }
    return el("ol", {}, ...rows.map(([place, other]) => {
      const [id, logprob, text, kind] = other;
      const actual = id === piece.id;
      const words = actual ? [piece.text, piece.kind] : [text, kind];
      const share = percent(Math.exp(logprob));
      const label = `${ordinal(place)}: ${named(...words)}, ${share}${actual ? say(", no texto", ", in the text") : ""}`;
      return el("li", {}, el("button", {
        type: "button", class: "tok-row" + (actual ? " tok-actual" : ""), "aria-label": label, title: label,
        disabled: kind === "special" ? "" : null, style: `--share: ${Math.exp(logprob)}`,
        onclick: () => onchoose(other),
      }, el("span", {class: "tok-place"}, ordinal(place)), el("span", {class: "tok-word"}, ...shown(...words)),
      actual ? el("span", {class: "tok-tag"}, say("no texto", "in the text")) : null,
      el("span", {class: "tok-share"}, share)));
    }));
  }

  // Pieces with [text, kind, bytes] as they are in the text that goes on from them.
  const respelled = (pieces, known) => pieces.map((piece, at) => {
    const [text, kind, bytes] = known[at] ?? [piece.text, piece.kind, piece.bytes];
    return {...piece, text, kind, bytes};
  });

  // The pieces joined: marks are no text, and neither is a part of a character.
  const textOf = (pieces) => pieces.map(({text, kind}) => (kind === "" ? text : "")).join("");

  // Bits of the tokens that have a probability, and the bytes and characters that they stand for.
  function measure(pieces) {
    const scored = pieces.filter(({logprob}) => logprob !== null);
    const bits = scored.reduce((sum, {logprob}) => sum - logprob / Math.LN2, 0);
    const bytes = scored.reduce((sum, piece) => sum + piece.bytes, 0);
    return {tokens: scored.length, bits, bytes, characters: [...textOf(scored)].length};
  }

  function figures(pieces) {
    const {tokens, bits, bytes, characters} = measure(pieces);
    if (!bytes || !characters) return "";
    const byByte = number(bits / bytes, 2);
    const byCharacter = number(bits / characters, 2);
    return say(
      `${number(tokens, 0)} tokens · ${byByte} bits por byte · ${byCharacter} bits por caractere`,
      `${number(tokens, 0)} tokens · ${byByte} bits per byte · ${byCharacter} bits per character`);
  }

  // How the first token is counted, which has nothing or only the mark of a beginning before it.
  function noteOn(first) {
    const less = say("Menos bits: o modelo esperava mais o texto.", "Fewer bits: the model expected the text more.");
    const counted = first.kind === "special" && first.logprob === null;
    return less + " " + (counted
      ? say(`O primeiro token do texto conta, previsto só a partir da marca de começo ${first.text}.`,
        `The first token of the text counts, predicted from the mark of a beginning, ${first.text}, alone.`)
      : say("O primeiro token não conta: nada vem antes dele.", "The first token does not count: nothing is before it."));
  }

  Object.assign(ptbr, {probabilities, measure});
})();
