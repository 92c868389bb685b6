// Which tokens the sampler may draw, and how probable each is: ptbr_slm/runtime/sampling in the browser, so
// that the bars follow the sliders without the server. A test compares the two.
//
// tokens: [{id, logit, seen}] one by one; levels: [[logit, count]] of all the others, none of them more
// probable than the unseen ones among `tokens`. settings: {temperature, topP, topK, minP, repetition}.
//
// Returns {tokens: [{token, share, out}], rest: {share, count, kept}}, the most probable first. share: of the
// draws, 0 for what is left out. out: "", "temperature", "topK", "topP" or "minP", the first that left it out.
(() => {
  const f32 = Math.fround;  // the sampler's weights are float32, their sums are not

  function distribution(tokens, levels, settings) {
    const entries = [
      ...tokens.map((token) => ({token, logit: penalised(token, settings.repetition), count: 1, id: token.id})),
      ...levels.map(([logit, count]) => ({token: null, logit, count, id: Infinity})),
    ].sort((a, b) => b.logit - a.logit || a.id - b.id);
    for (const entry of entries) entry.kept = entry.count;
    if (settings.temperature === 0) {
      keepFirst(entries, "temperature", 1);
      for (const entry of entries) entry.weight = entry.kept ? 1 : 0;
    } else {
      weigh(entries, settings.temperature);
      topK(entries, settings.topK);
      topP(entries, settings.topP);
      for (const entry of entries) if (f32(entry.weight) < f32(settings.minP)) leaveOut(entry, "minP", 0);
    }
    return shares(entries);
  }

  function penalised({logit, seen}, penalty) {
    if (!seen || penalty === 1) return logit;
    return f32(logit < 0 ? logit * f32(penalty) : logit / f32(penalty));
  }

  function weigh(entries, temperature) {
    const peak = entries[0].logit;
    for (const entry of entries) {
      entry.weight = f32(Math.exp(f32(f32(entry.logit - peak) / f32(temperature))));
    }
  }

  // The k largest, and what ties with the last of them.
  function topK(entries, k) {
    if (!k) return;
    let before = 0;
    let last = null;
    for (const entry of entries) {
      if (before < k) {
        last = entry.logit;
        if (!entry.token) leaveOut(entry, "topK", k - before);
      } else if (entry.logit !== last) {
        leaveOut(entry, "topK", 0);
      }
      before += entry.count;
    }
  }

  // The largest, until they reach the share p of what is left; at least one.
  function topP(entries, p) {
    if (p >= 1) return;
    const wanted = p * entries.reduce((sum, {weight, kept}) => sum + weight * kept, 0);
    let sum = 0;
    let first = true;
    for (const entry of entries) {
      if (!entry.kept) continue;
      const needed = Math.ceil((wanted - sum) / entry.weight);
      sum += entry.weight * entry.kept;
      if (needed < entry.kept) leaveOut(entry, "topP", Math.max(first ? 1 : 0, needed));
      first = false;
    }
  }

  function keepFirst(entries, why, count) {
    for (const entry of entries.slice(count)) leaveOut(entry, why, 0);
  }

  function leaveOut(entry, why, kept) {
    if (entry.kept && !kept) entry.out = why;
    entry.kept = Math.min(entry.kept, kept);
  }

  function shares(entries) {
    const total = entries.reduce((sum, {weight, kept}) => sum + weight * kept, 0);
    const found = {tokens: [], rest: {share: 0, count: 0, kept: 0}};
    for (const {token, weight, kept, count, out} of entries) {
      if (token) {
        found.tokens.push({token, share: (weight * kept) / total, out: out || ""});
      } else {
        found.rest.share += (weight * kept) / total;
        found.rest.count += count;
        found.rest.kept += kept;
      }
    }
    return found;
  }

  (globalThis.ptbr ??= {}).distribution = distribution;
})();
