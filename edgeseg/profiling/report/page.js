// The slider of each frame: how much of the second picture lies over the first.
for (const stage of document.querySelectorAll(".stage")) {
  const range = stage.querySelector("input");
  const show = () => stage.style.setProperty("--at", range.value + "%");
  range.addEventListener("input", show);
  show();
}
