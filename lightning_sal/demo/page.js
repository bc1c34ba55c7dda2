// Brings the answers into view when the first words of a run are there; on a phone they begin below the fold.
() => {
  const results = document.getElementById("results");
  let shown = false;
  new MutationObserver(() => {
    const some = results.querySelector(".card") !== null;
    if (some && !shown) results.scrollIntoView({ behavior: "smooth" });
    shown = some;
  }).observe(results, { childList: true, subtree: true });
}
