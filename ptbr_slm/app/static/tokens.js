// What both tabs of tokens share: the page's language, elements, numbers, a token's text, a tab's box.
// What the model writes reaches the page as text nodes and attributes only, never as HTML.
(() => {
  const english = () => document.documentElement.lang === "en";

  // (Portuguese, English) -> the one that the page speaks.
  const say = (portuguese, inEnglish) => (english() ? inEnglish : portuguese);

  // A new element. Attributes: "class", "aria-label" and so on; null is left out; on... are listeners.
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  function number(value, digits) {
    return value.toLocaleString(say("pt-BR", "en"), {minimumFractionDigits: digits, maximumFractionDigits: digits});
  }

  // 0.1234 -> "12,3 %".
  function percent(share) {
    const value = 100 * share;
    if (value > 0 && value < 0.01) return say("< 0,01 %", "< 0.01%");
    return number(value, value >= 1 || value === 0 ? 1 : 2) + say(" %", "%");
  }

  // 3 -> "3º".
  function ordinal(place) {
    const last = {1: "st", 2: "nd", 3: "rd"}[place % 10];
    return number(place, 0) + say("º", last && Math.floor(place / 10) % 10 !== 1 ? last : "th");
  }

  // A token's text where it stands alone: spaces and line breaks made visible, and marked as such.
  function shown(text, kind) {
    if (kind) return [el("span", {class: "tok-" + kind}, text)];
    return text.split(/([ \n\t\r])/).filter(Boolean).map((part) => {
      const sign = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}[part];
      return sign ? el("span", {class: "tok-space"}, sign) : part;
    });
  }

  // A token in words, for a label.
  function named(text, kind) {
    if (kind === "special") return say("marca especial ", "special mark ") + text;
    if (kind === "bytes") return say("parte de um caractere, ", "part of a character, ") + text;
    const said = text.replaceAll("\n", say("quebra de linha", "line break"));
    if (said.trim() === "") return said.length === 1 ? say("espaço", "space") : say("espaços", "spaces");
    return "“" + said.trim() + "”" + (said.startsWith(" ") ? "" : say(", sem espaço antes", ", no space before"));
  }

  // The parts of a view's value: a line of JSON each.
  const lines = (value) => (value || "").split("\n").filter(Boolean).map((line) => JSON.parse(line));

  // The text of a Gradio textbox, by its elem_id.
  const box = (id) => document.querySelector(`#${id} textarea`);

  function write(id, text) {
    const area = box(id);
    if (!area || area.value === text) return;
    area.value = text;
    area.dispatchEvent(new Event("input", {bubbles: true}));
  }

  const enable = (id, on) => {
    const button = document.getElementById(id);
    if (button) button.disabled = !on;
  };

  Object.assign((globalThis.ptbr ??= {}), {say, el, number, percent, ordinal, shown, named, lines, box, write, enable});
})();
