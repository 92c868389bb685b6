addEventListener("keydown", (event) => {
  const stop = document.querySelector("#comp-parar");
  if (event.key === "Escape" && stop && !stop.disabled) stop.click();
});
// The lines of the tab Comparar and of the buttons below the text are told to screen readers; the figures of two
// texts only once both have ended, not twenty times a second.
new MutationObserver(() => {
  const busy = document.querySelector("#comp-parar")?.disabled === false;
  for (const [name, waits] of [["comp-resumo", busy], ["comp-estado-a", busy], ["comp-estado-b", busy], ["compartilhar-estado", false]]) {
    const line = document.getElementById(name);
    if (!line || line.getAttribute("aria-busy") === String(waits)) continue;
    line.setAttribute("role", "status");
    line.setAttribute("aria-live", "polite");
    line.setAttribute("aria-busy", String(waits));
  }
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["disabled"]});
