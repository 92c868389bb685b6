// The tab Próximo token: bars of the tokens that could come next, as the sampler would draw them.
//
// The server sends what the model said of a text (Reader.next_token_facts) as the value of a gr.HTML; what the
// sliders make of it is worked out here (distribution.js). Whoever chooses a bar sends back ids.
(() => {
  const {say, el, number, percent, shown, named, lines, box, write, enable, distribution} = ptbr;
  const BARS = 12;
  const MOST_UNDONE = 100;

  function nextToken(element, props, trigger, watch) {
    let facts = null;
    let past = [];
    let turn = 0;  // what comes for an earlier one is not shown
    let busy = false;
    let request = null;
    let settings = settingsOf(props.settings);
    const view = build(element);

    // Ver o próximo token. Null while something runs.
    function read(text) {
      if (busy) return null;
      begin();
      return {turn, text};
    }

    function append(id) {
      if (busy) return;
      begin();
      request = {turn, ids: [...facts.ids, id]};
      trigger("select");
    }

    function begin() {
      past = [...past, {facts, text: box("prox-texto")?.value ?? ""}].slice(-MOST_UNDONE);
      turn += 1;
      setBusy(true);
    }

    function take(value) {
      const found = lines(value).at(-1);
      if (!busy || found?.turn !== turn) return;
      facts = found;
      if (facts.appended) write("prox-texto", facts.text);
      settle();
    }

    // The turn is over, well or not.
    function settle() {
      if (!busy) return;
      turn += 1;
      const before = past.at(-1).facts;
      if (before === facts || !before) past.pop();
      setBusy(false);
      draw();
    }

    function undo() {
      if (busy || !past.length) return;
      const before = past.pop();
      facts = before.facts;
      write("prox-texto", before.text);
      enable("prox-desfazer", past.length > 0);
      draw();
    }

    function setBusy(on) {
      busy = on;
      for (const id of ["prox-ver", "prox-trazer"]) enable(id, !on);
      enable("prox-desfazer", !on && past.length > 0);
      if (box("prox-texto")) box("prox-texto").readOnly = on;
      view.bars.classList.toggle("prox-busy", on);
      view.line.setAttribute("aria-busy", String(on));
    }

    function draw() {
      view.bars.hidden = !facts;
      if (!facts) {
        view.line.textContent = view.rest.textContent = "";
        return;
      }
      const {tokens, rest} = distribution(facts.tokens, facts.levels, settings);
      const model = distribution(facts.tokens, facts.levels, AS_THE_MODEL);
      const before = new Map(model.tokens.map(({token, share}) => [token.id, share]));
      const rows = tokens.slice(0, BARS);
      const focused = [...view.bars.children].findIndex((row) => row.contains(document.activeElement));
      view.bars.replaceChildren(...rows.map((row) => bar(row, before.get(row.token.id))));
      if (focused >= 0) view.bars.children[Math.min(focused, rows.length - 1)]?.firstChild.focus();
      view.line.textContent = context(facts);
      view.rest.textContent = others(tokens, rest);
    }

    function bar({token, share, out}, before) {
      const why = out && OUT()[out];
      const original = say(`${percent(before)} no modelo`, `${percent(before)} in the model`);
      const repeated = token.seen && settings.repetition !== 1 ? say(", já está no texto", ", already in the text") : "";
      const label = `${named(token.text, token.kind)}: ${percent(share)}${why ? ", " + why : ""} (${original}${repeated})`;
      return el("li", {}, el("button", {
        type: "button", class: "tok-row" + (out ? " tok-out" : ""), "aria-label": label, title: label,
        disabled: token.kind === "special" ? "" : null, "data-id": token.id,
        style: `--share: ${share}`, onclick: () => append(token.id),
      }, el("span", {class: "tok-word"}, ...shown(token.text, token.kind)),
      why ? el("span", {class: "tok-tag"}, why) : null,
      el("span", {class: "tok-share"}, percent(share))));
    }

    function takeFromText() {
      if (busy) return;
      write("prox-texto", box("texto")?.value ?? "");
      if (box("prox-texto").value) document.getElementById("prox-ver").click();
    }

    function set(values) {
      settings = settingsOf(values);
      draw();
    }

    watch("value", () => take(props.value));
    setBusy(false);
    draw();
    ptbr.next = {read, settle, undo, takeFromText, set, request: () => request};
  }

  // Of distribution.js, from the values of the sliders, in the order of SETTINGS (tabs/next_token.py).
  const settingsOf = ([temperature, topP, topK, minP, repetition]) => ({temperature, topP, topK, minP, repetition});

  const AS_THE_MODEL = settingsOf([1, 1, 0, 0, 1]);

  const OUT = () => ({
    temperature: say("temperatura 0: só o primeiro", "temperature 0: only the first"),
    topK: say("fora do top-k", "outside top-k"),
    topP: say("fora do top-p", "outside top-p"),
    minP: say("abaixo do min-p", "below min-p"),
  });

  // The empty view.
  function build(element) {
    const line = el("p", {class: "prox-line", role: "status", "aria-live": "polite"});
    const bars = el("ol", {
      class: "prox-bars", "aria-label": say("Próximos tokens possíveis", "Possible next tokens"), hidden: "",
    });
    const rest = el("p", {class: "prox-rest"});
    element.replaceChildren(line, bars, rest);
    return {line, bars, rest};
  }

  function context(facts) {
    const used = facts.ids.length;
    const words = say(
      `${number(used, 0)} de ${number(facts.context, 0)} tokens do contexto`,
      `${number(used, 0)} of ${number(facts.context, 0)} tokens of the context`);
    const open = facts.pending && say(`falta terminar um caractere (${facts.pending})`, `a character is unfinished (${facts.pending})`);
    return open ? `${words} · ${open}` : words;
  }

  // What the bars leave out.
  function others(tokens, rest) {
    const hidden = tokens.slice(BARS);
    const count = hidden.length + rest.count;
    const share = hidden.reduce((sum, row) => sum + row.share, rest.share);
    const kept = hidden.filter(({out}) => !out).length + rest.kept;
    if (!count) return "";
    return say(
      `Outros ${number(count, 0)} tokens: ${percent(share)} ao todo; ${number(kept, 0)} deles podem sair.`,
      `${number(count, 0)} other tokens: ${percent(share)} in all; ${number(kept, 0)} of them can be drawn.`);
  }

  ptbr.nextToken = nextToken;
})();
