// Hide those elements whose text lacks one of the words that are searched for.
function searchable(elements, name) {
  const search = document.getElementById("search"), count = document.getElementById("count");
  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    for (const one of elements) {
      const text = one.textContent.toLowerCase();
      one.hidden = !words.every(word => text.includes(word));
      visible += !one.hidden;
    }
    count.textContent = `${visible} of ${elements.length} ${name}`;
  }
  search.addEventListener("input", filter);
  filter();
}
