"use strict";
(() => {
  const show = (figure) => {
    const stage = figure.querySelector(".stage");
    const range = stage.querySelector("input");
    const [left, right] = figure.querySelectorAll("select");
    stage.querySelectorAll("img").forEach((image, index) => {
      const isLeft = String(index) === left.value;
      const isRight = String(index) === right.value;
      image.hidden = !isLeft && !isRight;
      image.classList.toggle("right", isRight && !isLeft);
    });
    const names = [left, right].map((select) => select.selectedOptions[0].textContent);
    stage.querySelector(".tag.l").textContent = names[0];
    stage.querySelector(".tag.r").textContent = names[1];
    stage.style.setProperty("--cut", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} % ${names[0]}, ${100 - range.value} % ${names[1]}`);
  };
  const figures = [...document.querySelectorAll(".photo")];
  for (const figure of figures) {
    figure.addEventListener("input", () => show(figure));
    show(figure);
  }
  document.querySelectorAll(".all select").forEach((chooser, side) => {
    chooser.addEventListener("input", () => {
      for (const figure of figures) {
        figure.querySelectorAll("select")[side].value = chooser.value;
        show(figure);
      }
    });
  });
})();
