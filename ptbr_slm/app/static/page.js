// What the whole page shares: its language, words that Gradio leaves in English, and texts that grow.
// The script stands in the <head>: Gradio runs it, then draws the page, and parts of it again.
(() => {
  // As Gradio chooses (language.py): English for English and for a language that it does not know.
  const known = window.gradio_config?.i18n_translations ?? {"en": {}, "pt": {}};  // none before a login
  const language = [navigator.language, navigator.language.split("-")[0]].find((code) => code in known);
  const english = (language ?? "en") === "en";
  document.documentElement.lang = english ? "en" : "pt-BR";
  const say = (portuguese, inEnglish) => english ? inEnglish : portuguese;

  // Texts that Gradio 6.31 has in English alone.
  const GRADIOS_WORDS = {
    "Copy": "Copiar", "Copied": "Copiado", "More tabs": "Mais abas", "Reset to default value": "Valor inicial",
    "Code input container": "Código", "Fold line": "Recolher", "Unfold line": "Expandir",
    "Error": "Não deu para continuar", "Connection Lost": "Conexão perdida",
    "Connection to the server was lost. Attempting reconnection...":
      "O servidor não responde. A página volta sozinha quando ele voltar.",
  };

  function translateGradio() {
    if (english) return;
    for (const input of document.querySelectorAll("input[aria-label]")) {
      const name = /^(number input|range slider) for (.*)$/.exec(input.getAttribute("aria-label"));
      if (name) input.setAttribute("aria-label", name[1] === "number input" ? `${name[2]}: valor` : name[2]);
    }
    for (const element of document.querySelectorAll("[aria-label], [title]")) {
      for (const name of ["aria-label", "title"]) {
        const word = GRADIOS_WORDS[element.getAttribute(name)];
        if (word) element.setAttribute(name, word);
      }
    }
    for (const element of document.querySelectorAll(".toast-title, .toast-text")) {
      const word = GRADIOS_WORDS[element.textContent.trim()];
      if (word) element.textContent = word;
    }
  }

  // Ask the server for a text and hand over what comes: onPiece(new piece, status line), in order.
  // Resolves when the text is complete. Throws a Refused with the server's sentence, an AbortError after
  // signal's abort (which ends the text on the server), another Error where the connection broke.
  class Refused extends Error {}

  async function streamText(path, asked, signal, onPiece) {
    const key = document.querySelector("[data-key]").dataset.key;
    const answer = await fetch(path, {
      method: "POST",
      headers: {"content-type": "application/json", "x-page-key": key, "accept-language": english ? "en" : "pt-BR"},
      body: JSON.stringify(asked),
      signal,
    });
    if (answer.status === 403) {
      throw new Refused(say("A página é antiga: recarregue-a.", "This page is old: reload it."));
    }
    if (!answer.ok) throw new Error(answer.statusText);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let waiting = "";
    for (;;) {
      const {done, value} = await reader.read();
      if (done) throw new Error("the answer broke off");
      const lines = (waiting + value).split("\n");
      waiting = lines.pop();
      for (const line of lines) {
        const event = JSON.parse(line);
        if (event.error) throw new Refused(event.error);
        if (event.done) return;
        if (!signal.aborted) onPiece(event.text, event.status);
      }
    }
  }

  // A text on its way, one at a time in a tab: what both tabs that write have in common.
  class Writing {
    constructor(statusId, changed) {
      this.statusId = statusId;
      this.changed = changed;  // called after every change of state
      this.status = say("Pronto.", "Ready.");
      this.failed = false;
      this.controller = null;
    }

    get busy() {
      return this.controller !== null;
    }

    // From the click on, before the server knows of it: nothing else may begin.
    begin() {
      this.controller = new AbortController();
      this.show(say("Lendo o texto…", "Reading the text…"));
    }

    // Returns whether the text is complete; after a stop, nothing more is heard of it.
    async run(path, asked, onPiece) {
      const mine = this.controller;
      try {
        await streamText(path, asked, mine.signal, (piece, status) => {
          onPiece(piece);
          this.show(status);
        });
      } catch (error) {
        if (mine.signal.aborted) return false;
        const lost = say("A conexão com o servidor caiu; o que está escrito ficou. Tente de novo.",
                         "The connection to the server was lost; what is written stays. Try again.");
        this.show(error instanceof Refused ? error.message : lost, true);
      }
      if (mine.signal.aborted) return false;
      this.controller = null;
      this.changed();
      return true;
    }

    stop() {
      this.controller.abort();
      this.controller = null;
      const stopped = say("parado", "stopped");
      const reading = !this.status.includes(" · ");
      this.show(reading ? stopped[0].toUpperCase() + stopped.slice(1) + "." : `${this.status} · ${stopped}`);
    }

    show(status, failed = false) {
      this.status = status;
      this.failed = failed;
      this.changed();
    }

    // The line's element, whenever Gradio has drawn it: a screen reader hears the end, not twenty pieces a second.
    draw() {
      const line = document.getElementById(this.statusId);
      if (!line) return;
      change(line, "aria-busy", String(this.busy));
      line.classList.toggle("erro", this.failed);
      if (line.textContent !== this.status) line.textContent = this.status;
    }
  }

  function change(element, attribute, value) {
    if (element && element.getAttribute(attribute) !== value) element.setAttribute(attribute, value);
  }

  // A button that cannot be used keeps the focus, which a disabled one would lose.
  function allow(id, allowed) {
    change(document.getElementById(id), "aria-disabled", String(!allowed));
  }

  function allowed(id) {
    const button = document.getElementById(id);
    return button !== null && button.getAttribute("aria-disabled") !== "true";
  }

  // Put a text into a box of Gradio as if it had been typed, so that Gradio knows of it.
  function fill(box, text) {
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
    box.value = text;
    box.dispatchEvent(new Event("input", {bubbles: true}));
    if (atEnd) box.scrollTop = box.scrollHeight;
  }

  // What outlives a reload of this browser tab, and nothing else.
  function keep(name, value) {
    try {
      sessionStorage.setItem(`ptbr-slm ${name}`, JSON.stringify(value));
    } catch {}  // no room, or storage is forbidden
  }

  function takeKept(name) {
    try {
      const value = JSON.parse(sessionStorage.getItem(`ptbr-slm ${name}`));
      sessionStorage.removeItem(`ptbr-slm ${name}`);
      return value;
    } catch {
      return null;
    }
  }

  const actions = {};  // id of a button -> what its click does, before Gradio hears of it
  const drawn = [];  // called when Gradio has drawn something

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.getAttribute("aria-disabled") === "true") {
      event.stopImmediatePropagation();
      event.preventDefault();
    } else if (actions[button.id]) {
      actions[button.id](event);
    }
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const id of ["parar", "parar-resposta"]) if (allowed(id)) document.getElementById(id).click();
  }, true);

  new MutationObserver(() => {
    translateGradio();
    drawn.forEach((draw) => draw());
  }).observe(document, {subtree: true, childList: true});

  Object.assign((globalThis.ptbr ??= {}), {say, Writing, change, allow, allowed, fill, keep, takeKept, actions, drawn});
})();
