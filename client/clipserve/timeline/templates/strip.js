"use strict";
// Each strip: a line and the labels under the pointer, a line where the video plays, click to play at that moment.
for (const strip of document.querySelectorAll(".strip")) {
  const section = strip.closest(".video");
  const video = section.querySelector("video");
  const data = section.querySelector("script[type='application/json']");
  const windows = data ? JSON.parse(data.textContent) : [];
  const length = Number(strip.dataset.length);
  const track = strip.querySelector(".track");
  const over = strip.querySelector(".over"), tip = strip.querySelector(".tip");
  const pointer = strip.querySelector(".pointer"), playhead = strip.querySelector(".playhead");
  const clock = seconds => {
    const whole = Math.floor(seconds), two = number => String(number).padStart(2, "0");
    return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
  };
  const readSeconds = event => {
    const box = track.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * length;
  };
  // The window whose middle is nearest: the last that begins before, or one of those that overlap it.
  const findWindow = seconds => {
    let low = 0, high = windows.length - 1;
    const middle = number => (windows[number][0] + windows[number][1]) / 2;
    while (low < high) {
      const half = (low + high) >> 1;
      if (middle(half) < seconds) low = half + 1; else high = half;
    }
    return low > 0 && Math.abs(middle(low - 1) - seconds) <= Math.abs(middle(low) - seconds) ? low - 1 : low;
  };
  const place = () => {
    over.style.left = `${track.offsetLeft}px`;
  };
  strip.addEventListener("pointermove", event => {
    if (!event.target.closest(".track")) return hide();
    place();
    const seconds = readSeconds(event);
    pointer.hidden = tip.hidden = false;
    pointer.style.left = `${100 * seconds / length}%`;
    tip.style.left = `${track.offsetLeft + track.offsetWidth * seconds / length}px`;
    const found = windows.length ? windows[findWindow(seconds)] : null;
    const labels = found ? found[2].map(([label, score]) => `${score.toFixed(2)}  ${label}`) : [];
    tip.textContent = [`${clock(seconds)}  (${seconds.toFixed(1)} s)`, ...labels].join("\n");
  });
  const hide = () => { pointer.hidden = tip.hidden = true; };
  strip.addEventListener("pointerleave", hide);
  strip.addEventListener("click", event => {
    if (!video || !event.target.closest(".track")) return;
    const part = event.target.closest(".part");
    // A click by the keyboard has no position: it plays from the start of the segment.
    const seconds = part && event.detail === 0 ? Number(part.dataset.seconds) : readSeconds(event);
    video.currentTime = seconds;
    video.play().catch(() => {});
  });
  if (video) {
    video.addEventListener("timeupdate", () => {
      place();
      playhead.hidden = false;
      playhead.style.left = `${100 * video.currentTime / length}%`;
    });
    video.addEventListener("error", () => { video.hidden = true; });
  }
}
