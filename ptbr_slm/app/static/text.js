// The Texto tab: the text, what Desfazer and Refazer know, and what a click changes, all of it in the browser,
// so that no click depends on an answer that is still on its way.
(() => {
  const {say, Writing, change, allow, allowed, fill, keep, takeKept, actions, drawn} = ptbr;

  const text = ptbr.text = {
    writing: new Writing("estado", () => text.draw()),
    base: null,  // what was last continued: Tentar de novo starts from it
    past: [],  // {text, base} before each action, newest last
    future: [],  // what Desfazer took back
    restored: false,
    request: null,  // {prompt, newSeed} from the click until Gradio has collected the sampling

    get box() {
      return document.querySelector("#texto textarea");
    },

    remember() {
      const now = this.box.value;
      if (this.past.at(-1)?.text !== now) this.past.push({text: now, base: this.base});
      if (this.past.length > 50) this.past.shift();
      this.future = [];
    },

    begin(prompt, newSeed) {
      this.remember();
      this.base = prompt;
      this.request = {prompt, newSeed};
      if (this.box.value !== prompt) fill(this.box, prompt);
      this.writing.begin();
    },

    // Gradio calls this in the same click, with the values of the sampling panel.
    async run(...sampling) {
      const {request} = this;
      this.request = null;
      if (!request || !this.writing.busy) return;
      if (request.newSeed) sampling[5] = "";  // a fixed seed would give the same text
      const asked = {prompt: request.prompt, sampling};
      const ended = await this.writing.run("stream/text", asked, (piece) => fill(this.box, this.box.value + piece));
      if (ended) this.settle();
    },

    // An action that changed nothing (an error, a stop before the first token) is no step to undo.
    settle() {
      if (this.past.at(-1)?.text === this.box.value) this.base = this.past.pop().base;
      this.draw();
    },

    stop() {
      this.writing.stop();
      this.settle();
    },

    step(from, to) {
      if (this.writing.busy) this.writing.stop();
      const step = from.pop();
      if (step.text !== this.box.value) to.push({text: this.box.value, base: this.base});
      this.base = step.base;
      fill(this.box, step.text);
      this.writing.show(say("Pronto.", "Ready."));
    },

    choose(example) {
      if (this.box.value) this.remember();
      fill(this.box, example);
      this.box.focus();
      this.writing.show(say("Pronto.", "Ready."));
    },

    // A reload, which Gradio does by itself when its server is back, keeps the text of this browser tab.
    restore() {
      this.restored = true;
      const kept = takeKept("texto");
      if (kept && !this.box.value) {
        Object.assign(this, {base: kept.base, past: kept.past, future: kept.future});
        fill(this.box, kept.text);
      }
      if (matchMedia("(pointer: fine)").matches) this.box.focus();
    },

    draw() {
      const {box, writing} = this;
      if (!box) return;
      if (!this.restored) this.restore();
      const {busy} = writing;
      change(box, "aria-label", say("Texto", "Text"));  // its <label> names the copy button
      if (box.readOnly !== busy) box.readOnly = busy;  // what one types into a text that grows would be lost
      allow("continuar", !busy);
      allow("parar", busy);
      allow("de-novo", !busy && this.base !== null);
      allow("desfazer", this.past.length > 0);
      allow("refazer", !busy && this.future.length > 0);
      document.querySelectorAll("#exemplos button").forEach((button) => change(button, "aria-disabled", String(busy)));
      writing.draw();
    },
  };

  actions["continuar"] = () => text.begin(text.box.value, false);
  actions["de-novo"] = () => text.begin(text.base, true);
  actions["parar"] = () => text.stop();
  actions["desfazer"] = () => text.step(text.past, text.future);
  actions["refazer"] = () => text.step(text.future, text.past);

  document.addEventListener("click", (event) => {
    const example = event.target.closest("#exemplos button");
    if (example) text.choose(example.textContent);
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#texto")) {
      event.preventDefault();
      if (allowed("continuar")) document.getElementById("continuar").click();
    }
  }, true);

  addEventListener("pagehide", () => {
    if (text.box) keep("texto", {text: text.box.value, base: text.base, past: text.past, future: text.future});
  });
  drawn.push(() => text.draw());
})();
