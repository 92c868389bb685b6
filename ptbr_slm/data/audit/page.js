"use strict";
// Moves thresholds over the sample in #data. Text goes into the page through textContent only.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const figureReasons = new Set(data.rules.map((rule) => rule.reason));
  const number = (value, digits) => value.toLocaleString("pt-BR", { maximumFractionDigits: digits });
  const state = data.rules.map((rule) => ({ threshold: rule.threshold, active: rule.active }));

  const drops = (index, sampled) => {
    const value = sampled.values[data.rules[index].figure];
    if (value === null) return false;
    return data.rules[index].least ? value < state[index].threshold : value > state[index].threshold;
  };

  const share = (test, weigh) => {
    let part = 0;
    let whole = 0;
    for (const sampled of data.sample) {
      whole += weigh(sampled);
      if (test(sampled)) part += weigh(sampled);
    }
    return whole ? (100 * part) / whole : 0;
  };
  const documents = (sampled) => sampled.weight;
  const bytes = (sampled) => sampled.weight * sampled.bytes;

  // A document that was dropped for another reason (a copy, say) stays out whatever the thresholds are. So
  // does one whose figure is not stored and that a rule dropped.
  const stays = (sampled) => {
    if (sampled.reason && !figureReasons.has(sampled.reason)) return false;
    if (sampled.reason && sampled.values.every((value) => value === null)) return false;
    return !state.some((rule, index) => rule.active && drops(index, sampled));
  };

  const fill = (list, found, index) => {
    list.replaceChildren();
    for (const sampled of found) {
      const item = document.createElement("li");
      const text = document.createElement("p");
      const where = document.createElement("p");
      where.className = "where";
      text.textContent = sampled.excerpt || "(vazio)";
      where.textContent = `${sampled.source} · ${number(sampled.values[data.rules[index].figure], 4)}`;
      item.append(text, where);
      list.append(item);
    }
    if (!found.length) {
      const item = document.createElement("li");
      item.textContent = "nenhum documento da amostra";
      list.append(item);
    }
  };

  const total = document.getElementById("total-text");
  const show = (index) => {
    const rule = data.rules[index];
    const element = document.getElementById(`rule-${index}`);
    const known = data.sample.filter((sampled) => sampled.values[rule.figure] !== null);
    const distance = (sampled) => Math.abs(sampled.values[rule.figure] - state[index].threshold);
    known.sort((one, other) => distance(one) - distance(other));
    const out = known.filter((sampled) => drops(index, sampled));
    fill(element.querySelector(".kept"), known.filter((sampled) => !drops(index, sampled)).slice(0, 3), index);
    fill(element.querySelector(".gone"), out.slice(0, 3), index);
    const percent = share((sampled) => drops(index, sampled), documents);
    element.querySelector(".limit").textContent = number(state[index].threshold, 4);
    element.querySelector(".share").textContent = `sozinha, tiraria ${number(percent, 1)} %`;
    const line = element.querySelector("line");
    if (line) {
      const place = (100 * (state[index].threshold - rule.low)) / (rule.high - rule.low || 1);
      const x = Math.max(0, Math.min(100, place));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
    }
  };
  const showTotal = () => {
    total.textContent =
      `Com estes limites ficam ${number(share(stays, documents), 1)} % dos documentos e ` +
      `${number(share(stays, bytes), 1)} % do texto da amostra.`;
  };

  data.rules.forEach((rule, index) => {
    const element = document.getElementById(`rule-${index}`);
    const [range, exact, active] = ["range", "number", "checkbox"].map((kind) =>
      element.querySelector(`input[type=${kind}]`),
    );
    const move = (value) => {
      if (!Number.isFinite(value)) return;
      state[index] = { threshold: value, active: true };
      active.checked = true;
      show(index);
      showTotal();
    };
    range.addEventListener("input", () => {
      exact.value = range.value;
      move(Number(range.value));
    });
    exact.addEventListener("input", () => {
      range.value = exact.value;
      move(exact.value === "" ? NaN : Number(exact.value));
    });
    active.addEventListener("change", () => {
      state[index].active = active.checked;
      showTotal();
    });
  });
  document.getElementById("reset").addEventListener("click", () => {
    data.rules.forEach((rule, index) => {
      const element = document.getElementById(`rule-${index}`);
      state[index] = { threshold: rule.threshold, active: rule.active };
      element.querySelector("input[type=range]").value = rule.threshold;
      element.querySelector("input[type=number]").value = rule.threshold;
      element.querySelector("input[type=checkbox]").checked = rule.active;
      show(index);
    });
    showTotal();
  });
  data.rules.forEach((rule, index) => show(index));
  showTotal();
  document.documentElement.dataset.ready = "true";
})();
