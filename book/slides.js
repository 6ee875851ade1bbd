// Words are made smaller until the slide holds them; a picture gives way first (slides.css).
function fit(slide) {
  const room = () => slide.scrollHeight <= slide.clientHeight && slide.scrollWidth <= slide.clientWidth;
  for (let size = parseFloat(getComputedStyle(slide).fontSize); size > 14 && !room(); size -= 1) slide.style.fontSize = `${size}px`;
}
Reveal.initialize({ width: 1280, height: 720, margin: 0, center: false, display: "flex", hash: true, slideNumber: "c/t", transition: "none", controls: true });
Reveal.on("ready", () => MathJax.startup.promise.then(() => { fit(Reveal.getCurrentSlide()); document.body.dataset.ready = "yes"; }));
Reveal.on("slidechanged", (event) => fit(event.currentSlide));
