// A text and its settings in a link or in a small file, made and read in the browser: neither is sent to the
// server. In a link they stand behind the #, which a browser keeps to itself.
//
// values: {text, max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed, model}; model is a fingerprint
// of 16 hex digits.
// panel: {limits, name, fingerprint}: limits is {name: [least, most]} of each setting but the seed, the others are
// of the model of the page. given: what the controls hold, in the order of `values`, which has no model then.
const ptbrShare = (() => {
  const FORMAT = "ptbr-slm-text", VERSION = 1;
  const LONGEST_LINK = 8000;  // characters; what mail and chat programs leave whole
  const LONGEST_TEXT = 200_000;  // characters
  const LARGEST_FILE = 1_000_000;  // bytes

  const say = (english) => (english ? ENGLISH : PORTUGUESE);
  const LABELS = {
    max_new_tokens: ["tokens novos", "new tokens"], temperature: ["temperatura", "temperature"],
    top_p: ["top-p", "top-p"], top_k: ["top-k", "top-k"], repetition_penalty: ["repetição", "repetition"],
    seed: ["semente", "seed"],
  };
  const PORTUGUESE = {
    empty: "Escreva um texto antes de guardar ou compartilhar.",
    copied: "Link copiado. O texto vai dentro dele: quem tem o link lê o texto.",
    uncopied: (link) => `O navegador não deixou copiar; o link, com o texto dentro: \`${link}\``,
    local: "O endereço desta página só abre neste computador; para outra pessoa, mande um arquivo, ou abra a "
      + "página com --share.",
    long: "O texto é longo demais para um link: guarde num arquivo.",
    saved: "Arquivo guardado entre os seus downloads.",
    opened: "Texto aberto.",
    busy: "Espere o texto terminar, ou toque em Parar, antes de abrir outro.",
    cancelled: "Nenhum arquivo foi aberto.",
    large: "O arquivo passa de 1 MB: um texto guardado por esta página é menor.",
    foreign: "Isto não é um texto guardado por esta página.",
    newer: "Isto foi guardado por uma versão mais nova do ptbr-slm: atualize com  pip install -U ptbr-slm",
    unreadable: "Não consegui ler o arquivo.",
    ignored: (names) => `Fora do que esta página aceita, e deixado como estava: ${names}.`,
    other: "Foi guardado com outro modelo: o mesmo texto e a mesma semente vão continuar de outro jeito.",
  };
  const ENGLISH = {
    empty: "Write a text before you save or share it.",
    copied: "Link copied. The text is inside it: whoever has the link can read the text.",
    uncopied: (link) => `The browser did not let it be copied; the link, with the text inside: \`${link}\``,
    local: "This page's address opens on this computer only; for somebody else, send a file, or open the page "
      + "with --share.",
    long: "The text is too long for a link: save it in a file.",
    saved: "File saved among your downloads.",
    opened: "Text opened.",
    busy: "Wait for the text to end, or stop it, before you open another.",
    cancelled: "No file was opened.",
    large: "The file is larger than 1 MB: a text saved by this page is smaller.",
    foreign: "This is not a text saved by this page.",
    newer: "This was saved by a newer version of ptbr-slm: update with  pip install -U ptbr-slm",
    unreadable: "The file could not be read.",
    ignored: (names) => `Not within what this page takes, and left as it was: ${names}.`,
    other: "It was saved with another model: the same text and seed will continue in another way.",
  };

  // A link to `address` that opens with these values; null where it would be too long.
  const linkTo = (address, values) => {
    const given = Object.entries(values).filter(([, value]) => value !== "" && value != null);
    const link = `${address.split("#")[0]}#${new URLSearchParams(given)}`;
    return link.length > LONGEST_LINK ? null : link;
  };

  // What a link holds, unchecked; null where it holds no text.
  const fromLink = (fragment) => {
    const found = new URLSearchParams(fragment.slice(1, 4 * LONGEST_TEXT));
    return found.has("text") ? Object.fromEntries(found) : null;
  };

  const toFile = (panel, values) => {
    const {text, model, ...settings} = values;
    const body = {format: FORMAT, version: VERSION, text, settings, model: {name: panel.name, fingerprint: model}};
    return JSON.stringify(body, null, 2) + "\n";
  };

  // What the content of a file holds, unchecked. Throws the name of what is wrong.
  const fromFile = (content) => {
    let body;
    try {
      body = JSON.parse(content);
    } catch {
      throw "foreign";
    }
    if (body?.format !== FORMAT || !Number.isInteger(body.version)) throw "foreign";
    if (body.version > VERSION) throw "newer";
    const settings = typeof body.settings === "object" ? body.settings : {};
    return {...settings, text: body.text, model: body.model?.fingerprint};
  };

  const number = (value) => (typeof value === "string" && value.trim() !== "" ? Number(value) : value);

  // {values, notes}: of what came from outside only what the controls can hold. Throws the name of what is wrong.
  const checked = (found, panel, english) => {
    if (typeof found.text !== "string" || found.text.length > LONGEST_TEXT) throw "foreign";
    const values = {text: found.text}, ignored = [], notes = [];
    for (const [name, [least, most]] of Object.entries(panel.limits)) {
      if (found[name] === undefined) continue;
      const value = number(found[name]);
      const whole = name === "max_new_tokens" || name === "top_k";
      const fits = typeof value === "number" && value >= least && value <= most && (!whole || Number.isInteger(value));
      if (fits) values[name] = value;
      else ignored.push(name);
    }
    if (/^\d{1,19}$/.test(String(found.seed ?? ""))) values.seed = String(found.seed);
    else if (found.seed !== undefined && found.seed !== "") ignored.push("seed");
    if (found.model !== undefined && found.model !== panel.fingerprint) notes.push(say(english).other);
    const names = ignored.map((name) => LABELS[name][english ? 1 : 0]).join(", ");
    if (names) notes.push(say(english).ignored(names));
    return {values, notes};
  };

  // What the events of the page call.

  const NAMES = ["text", ...Object.keys(LABELS)];
  const inEnglish = () => document.documentElement.lang === "en";

  const named = (panel, given) => {
    const values = Object.fromEntries(NAMES.map((name, at) => [name, given[at] ?? ""]));
    return {...values, model: panel.fingerprint};
  };

  // What the controls should show: `given`, changed where `found` says so; and a sentence.
  const opened = (panel, given, found) => {
    const english = inEnglish();
    const button = document.querySelector("#continuar");
    if (button && (button.disabled || button.getAttribute("aria-disabled") === "true")) throw "busy";
    const {values, notes} = checked(found, panel, english);
    const shown = NAMES.map((name, at) => values[name] ?? given[at]);
    return [...shown, [say(english).opened, ...notes].join(" ")];
  };

  const wrong = (given, reason) => [...given, say(inEnglish())[reason] ?? say(inEnglish()).unreadable];

  const copyLink = async (panel, given) => {
    const words = say(inEnglish()), values = named(panel, given);
    if (!values.text) return words.empty;
    const link = linkTo(location.href, values);
    if (link === null) return words.long;
    const local = ["127.0.0.1", "localhost", "[::1]"].includes(location.hostname) ? ` ${words.local}` : "";
    try {
      await navigator.clipboard.writeText(link);  // undefined on a page without https
    } catch {
      return words.uncopied(link) + local;
    }
    return words.copied + local;
  };

  const saveFile = (panel, given) => {
    const words = say(inEnglish()), values = named(panel, given);
    if (!values.text) return words.empty;
    const address = URL.createObjectURL(new Blob([toFile(panel, values)], {type: "application/json"}));
    const anchor = Object.assign(document.createElement("a"), {href: address, download: "texto.ptbr-slm.json"});
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    return words.saved;
  };

  const chooseFile = () => new Promise((resolve) => {
    const input = Object.assign(document.createElement("input"), {type: "file", accept: ".json,application/json"});
    input.id = "abrir-arquivo-escolha";
    input.hidden = true;
    const end = (file) => {
      input.remove();
      resolve(file);
    };
    input.addEventListener("change", () => end(input.files[0] ?? null));
    input.addEventListener("cancel", () => end(null));
    document.body.append(input);
    input.click();
  });

  const openFile = async (panel, given) => {
    const file = await chooseFile();
    try {
      if (file === null) throw "cancelled";
      if (file.size > LARGEST_FILE) throw "large";
      return opened(panel, given, fromFile(await file.text()));
    } catch (reason) {
      return wrong(given, reason);
    }
  };

  const openLink = (panel, given) => {
    try {
      const found = fromLink(location.hash);
      return found === null ? [...given, ""] : opened(panel, given, found);
    } catch (reason) {
      return wrong(given, reason);
    }
  };

  return {copyLink, saveFile, openFile, openLink};
})();

// Another link pasted into the same tab changes what stands behind the # alone: the page is not loaded again.
addEventListener("hashchange", () => document.querySelector("#abrir-link")?.click());
