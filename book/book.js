// A page that is opened as a file may not read other files, so the search shows titles without excerpts there.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

document.addEventListener("DOMContentLoaded", () => {
  // What a lesson says of an answer opens with the answer.
  for (const seen of document.querySelectorAll("details.seen")) {
    const before = [...document.querySelectorAll("details.hide")].filter(
      (d) => d.compareDocumentPosition(seen) & Node.DOCUMENT_POSITION_FOLLOWING).pop();
    before?.addEventListener("toggle", () => { seen.open = before.open; });
  }

  // The glossary shows the rows that hold what is typed, in either language.
  const field = document.getElementById("filter");
  field?.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    const rows = [...document.querySelectorAll(".bd-article tbody tr")];
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    field.parentElement.querySelector("output").textContent = wanted ? `${rows.filter((row) => !row.hidden).length}` : "";
  });
});
