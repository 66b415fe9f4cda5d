"use strict";
// The cursor, the player and what is highlighted follow one place: seconds from the start of the file.
(() => {
  const record = JSON.parse(document.getElementById("record").textContent);
  const timeline = document.getElementById("timeline");
  if (!timeline) return;
  const { start, end } = record.audio;
  const { beats, chords, sections } = record.result || { beats: [], chords: [], sections: [] };
  const cursor = document.getElementById("cursor"), bar = document.getElementById("bar"), now = document.getElementById("now");
  const cells = [...document.querySelectorAll(".bars button")];
  const blocks = [...document.querySelectorAll(".timeline .block")]; // sections, then chords
  const audio = document.getElementById("player");
  const within = (spans, time) => spans.findLastIndex((span) => span.start <= time && time < span.end);
  const clock = (time) => `${Math.floor(time / 60)}:${String(Math.floor(time % 60)).padStart(2, "0")}`;
  const cellSpans = cells.map((cell) => ({ start: Number(cell.dataset.start), end: Number(cell.dataset.end) }));
  const names = blocks.slice(sections.length).map((block) => block.textContent);
  let place = start, lit = null, dot = null;

  function show(time) {
    place = Math.min(Math.max(time, start), end);
    const at = `${(100 * (place - start)) / (end - start)}%`;
    cursor.setAttribute("x1", at);
    cursor.setAttribute("x2", at);
    const section = within(sections, place), chord = within(chords, place);
    blocks.forEach((block, i) => block.classList.toggle("on", i === section || i === chord + sections.length && chord >= 0));
    const words = [section >= 0 && `section ${sections[section].label}`, chord >= 0 && names[chord]].filter(Boolean);
    timeline.setAttribute("aria-valuenow", place.toFixed(1));
    timeline.setAttribute("aria-valuetext", [clock(place), ...words].join(", "));
    if (now) {
      const name = document.createElement("b");
      name.textContent = chord >= 0 ? names[chord] || "–" : "–";
      now.replaceChildren(name, section >= 0 ? ` section ${sections[section].label}` : "");
    }
    light(within(cellSpans, place));
  }

  function light(index) {
    const cell = cells[index] || null;
    if (cell !== lit) {
      if (lit) lit.removeAttribute("aria-current");
      if (cell) cell.setAttribute("aria-current", "true");
      lit = cell;
    }
    const first = cell ? beats.findIndex(([time]) => time >= cellSpans[index].start - 0.001) : -1;
    const beat = beats.findLastIndex(([time]) => time <= place);
    const next = cell && first >= 0 ? cell.querySelectorAll("u")[beat - first] || null : null;
    if (next !== dot) {
      if (dot) dot.classList.remove("on");
      if (next) next.classList.add("on");
      dot = next;
    }
  }

  function seek(time) {
    show(time);
    if (audio && audio.readyState) audio.currentTime = place;
  }

  const pointed = (event) => {
    const box = timeline.getBoundingClientRect();
    seek(start + ((event.clientX - box.left) / box.width) * (end - start));
  };
  timeline.addEventListener("pointerdown", (event) => { timeline.setPointerCapture(event.pointerId); pointed(event); });
  timeline.addEventListener("pointermove", (event) => { if (timeline.hasPointerCapture(event.pointerId)) pointed(event); });
  timeline.addEventListener("keydown", (event) => {
    const beat = record.result?.tempo.bpm ? 60 / record.result.tempo.bpm : 1;
    const goes = { ArrowLeft: place - beat, ArrowRight: place + beat, ArrowDown: place - 5, ArrowUp: place + 5, PageDown: place - 30, PageUp: place + 30, Home: start, End: end };
    if (event.key in goes) seek(goes[event.key]);
    else if (event.key === " " && audio && audio.readyState) audio.paused ? audio.play() : audio.pause();
    else return;
    event.preventDefault();
  });
  cells.forEach((cell, i) => cell.addEventListener("click", () => seek(cellSpans[i].start)));

  if (audio) {
    const gone = () => { bar.hidden = true; document.getElementById("nosound").hidden = false; };
    const follow = () => {
      show(audio.currentTime);
      if (!audio.paused) requestAnimationFrame(follow);
    };
    audio.addEventListener("error", gone);
    if (audio.error) gone();
    audio.addEventListener("loadedmetadata", () => { if (place > 0) audio.currentTime = place; });
    audio.addEventListener("play", follow);
    audio.addEventListener("seeked", () => show(audio.currentTime));
  }

  // A name that does not fit its block is not cut, it is left out.
  const fit = () => {
    for (const block of blocks) {
      const text = block.querySelector("text");
      const fits = text.getComputedTextLength() + 2 * Number(text.getAttribute("x")) - 3 <= block.getBoundingClientRect().width;
      text.setAttribute("visibility", fits ? "visible" : "hidden");
    }
  };
  addEventListener("resize", fit);
  addEventListener("beforeprint", fit);
  fit();
  show(start);
})();
