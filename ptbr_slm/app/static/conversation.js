// The Conversa tab: the conversation lives in the browser; each question sends it whole.
(() => {
  const {say, Writing, change, allow, allowed, fill, keep, takeKept, actions, drawn} = ptbr;

  const MOST_CHARACTERS = 200_000;  // of one conversation: the oldest messages beyond it are forgotten

  const conversation = ptbr.conversation = {
    writing: new Writing("estado-conversa", () => conversation.draw()),
    messages: [],  // {role, content}: user and assistant in turn
    question: null,  // what the model is answering now
    answer: "",
    request: null,  // {newSeed} from the click until Gradio has collected the settings
    restored: false,

    get box() {
      return document.querySelector("#mensagem textarea");
    },

    ask(question, newSeed) {
      Object.assign(this, {question, answer: "", request: {newSeed}});
      this.writing.begin();
    },

    send() {
      const question = this.box.value.trim();
      if (!question) return;
      fill(this.box, "");
      this.ask(question, false);
    },

    again() {
      this.messages.pop();
      this.ask(this.messages.pop().content, true);
    },

    // Gradio calls this in the same click, with the system's text and the values of the sampling panel.
    async run(system, ...sampling) {
      const {request} = this;
      this.request = null;
      if (!request || !this.writing.busy) return;
      if (request.newSeed) sampling[5] = "";  // a fixed seed would give the same answer
      const head = system.trim() ? [{role: "system", content: system}] : [];
      const messages = [...head, ...this.messages, {role: "user", content: this.question}];
      const ended = await this.writing.run("stream/chat", {messages, sampling}, (piece) => {
        this.answer += piece;
      });
      if (ended) this.settle();
    },

    // A question without an answer goes back to the box, unless another is there.
    settle() {
      if (this.answer) {
        this.messages.push({role: "user", content: this.question}, {role: "assistant", content: this.answer});
      } else if (!this.box.value) {
        fill(this.box, this.question);
      }
      const length = () => this.messages.reduce((sum, message) => sum + message.content.length, 0);
      while (length() > MOST_CHARACTERS) this.messages.splice(0, 2);
      Object.assign(this, {question: null, answer: ""});
      this.draw();
    },

    stop() {
      this.writing.stop();
      this.settle();
    },

    startAnew() {
      if (this.writing.busy) this.writing.stop();
      Object.assign(this, {messages: [], question: null, answer: ""});
      this.writing.show(say("Pronto.", "Ready."));
    },

    restore() {
      this.restored = true;
      this.messages = takeKept("conversa") ?? [];
    },

    draw() {
      const log = document.getElementById("conversa");
      if (!log || !this.box) return;
      if (!this.restored) this.restore();
      const {busy} = this.writing;
      const shown = [...this.messages];
      if (this.question !== null) shown.push({role: "user", content: this.question});
      if (this.question !== null && (this.answer || busy)) shown.push({role: "assistant", content: this.answer});
      drawMessages(log, shown);
      change(log, "aria-label", say("Conversa", "Conversation"));
      change(log, "data-empty", say("Escreva a primeira mensagem.", "Write the first message."));
      change(log, "aria-busy", String(busy));
      allow("enviar", !busy);
      allow("parar-resposta", busy);
      allow("responder-de-novo", !busy && this.messages.length > 0);
      allow("nova-conversa", shown.length > 0);
      this.writing.draw();
    },
  };

  // One paragraph a message, text and no markup; those that are there already are kept.
  function drawMessages(log, messages) {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    while (log.children.length > messages.length) log.lastElementChild.remove();
    messages.forEach(({role, content}, i) => {
      const bubble = log.children[i] ?? log.appendChild(document.createElement("p"));
      if (bubble.className !== role) bubble.className = role;
      change(bubble, "role", "article");
      change(bubble, "aria-label", role === "user" ? say("Você", "You") : say("Modelo", "Model"));
      if (bubble.textContent !== content) bubble.textContent = content;
    });
    if (atEnd) log.scrollTop = log.scrollHeight;
  }

  actions["enviar"] = () => conversation.send();
  actions["parar-resposta"] = () => conversation.stop();
  actions["responder-de-novo"] = () => conversation.again();
  actions["nova-conversa"] = () => conversation.startAnew();

  document.addEventListener("keydown", (event) => {
    const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (sends && event.target.closest("#mensagem")) {
      event.preventDefault();
      event.stopPropagation();
      if (allowed("enviar")) document.getElementById("enviar").click();
    }
  }, true);

  addEventListener("pagehide", () => keep("conversa", conversation.messages));
  drawn.push(() => conversation.draw());
})();
