// "Usar no meu código": programs that do what Continuar does, with the text and the settings of the page. They
// are made in the browser, so that they follow the controls at once and the text goes nowhere.
//
// model: {path, name, api, keys}: its folder; what a server calls it; the address of an API that runs already,
// or null; whether that one asks for a key.
// values: {text, max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed}, as the controls hold them.
const ptbrCode = (() => {
  const SERVED = "http://127.0.0.1:8000/v1";  // where `ptbr-slm serve` answers unless told otherwise
  const KEY = "PTBR_SLM_API_KEY";

  // A literal of JSON, which is one of Python too. Invisible characters and those that turn the direction of
  // the text round are written as escapes: code must read as it runs.
  const INVISIBLE = /[\u007f-\u009f\u00ad\u061c\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  const literal = (text) =>
    JSON.stringify(text).replace(INVISIBLE, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

  const shell = (text) => "'" + text.replaceAll("'", "'\\''") + "'";  // nothing is special inside but '

  const figure = (value) => String(Number(Number(value).toFixed(4)));  // 0.8, not 0.8000000000000002

  // Digits as they are: a seed may be larger than a number of JavaScript holds exactly.
  const seedOf = (value) => (/^\s*\d{1,19}\s*$/.test(value ?? "") ? String(value).trim().replace(/^0+(?=\d)/, "") : null);

  // [name, literal] of each argument, under the names that `names` gives some of them.
  const settings = (values, names = {}) => {
    const given = ["max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty"];
    const found = given.map((name) => [names[name] ?? name, figure(values[name])]);
    const seed = seedOf(values.seed);
    return seed === null ? found : [...found, ["seed", seed]];
  };

  const python = (model, values, english) => [
    "import ptbr_slm",
    "",
    "for chunk in ptbr_slm.stream(",
    `    ${literal(values.text)},`,
    `    model=${literal(model.path)},`,
    ...settings(values).map(([name, value]) => `    ${name}=${value},`),
    "):",
    '    print(chunk.text, end="", flush=True)',
    "",
    english
      ? "# ptbr_slm.generate(...) takes the same arguments and returns the whole text."
      : "# ptbr_slm.generate(...) recebe os mesmos argumentos e devolve o texto inteiro.",
  ].join("\n");

  // What must run before, where no API does.
  const before = (model, english) => {
    if (model.api !== null) return [];
    const first = english ? "Before, in another terminal" : "Antes, em outro terminal";
    return [`# ${first}: ptbr-slm serve ${shell(model.path)} --name ${shell(model.name)}`];
  };

  const curl = (model, values, english) => {
    const body = [
      ["model", literal(model.name)],
      ["prompt", literal(values.text)],
      ...settings(values, {max_new_tokens: "max_tokens"}),
    ];
    const json = `{\n${body.map(([name, value]) => `  "${name}": ${value}`).join(",\n")}\n}`;
    return [
      ...before(model, english),
      `curl ${shell((model.api ?? SERVED) + "/completions")} \\`,
      "  -H 'Content-Type: application/json' \\",
      ...(model.keys ? [`  -H "Authorization: Bearer $${KEY}" \\`] : []),
      `  -d ${shell(json)}`,
    ].join("\n");
  };

  const openai = (model, values, english) => {
    const ours = ["top_k", "repetition_penalty"];  // the client knows no such arguments, the server does
    const all = settings(values, {max_new_tokens: "max_tokens"});
    const extra = all.filter(([name]) => ours.includes(name)).map(([name, value]) => `"${name}": ${value}`);
    return [
      ...before(model, english),
      ...(model.keys ? ["import os", ""] : []),
      "from openai import OpenAI",
      "",
      `client = OpenAI(base_url=${literal(model.api ?? SERVED)}, api_key=${model.keys ? `os.environ["${KEY}"]` : '"-"'})`,
      "answer = client.completions.create(",
      `    model=${literal(model.name)},`,
      `    prompt=${literal(values.text)},`,
      ...all.filter(([name]) => !ours.includes(name)).map(([name, value]) => `    ${name}=${value},`),
      `    extra_body={${extra.join(", ")}},`,
      ")",
      "print(answer.choices[0].text)",
    ].join("\n");
  };

  // The three programs. given: what the controls hold.
  const all = (model, [text, ...rest]) => {
    const names = ["max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed"];
    const values = {text: text ?? "", ...Object.fromEntries(names.map((name, at) => [name, rest[at]]))};
    const api = model.api === null ? null : new URL(model.api, location.href).href;
    const english = document.documentElement.lang === "en";
    return [python, curl, openai].map((program) => program({...model, api}, values, english));
  };

  return {all};
})();
