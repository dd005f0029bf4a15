(function () {
  "use strict";
  const { thresholds, models } = JSON.parse(document.getElementById("curves").textContent);
  const slider = document.getElementById("threshold");
  const shown = document.getElementById("threshold-value");
  const rows = document.querySelectorAll("#threshold-counts tbody tr");
  const share = (count, total) => (total ? 100 * count / total : 0);
  const percent = (count, total) => (total ? share(count, total).toFixed(1) + " %" : "-");

  // How many have at least this probability: thresholds fall along a curve.
  function countsAt(model, threshold) {
    const { thresholds, found, alarms } = model.curve;
    let low = 0;
    let high = thresholds.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (thresholds[middle] >= threshold) low = middle + 1;
      else high = middle;
    }
    return low ? { found: found[low - 1], alarms: alarms[low - 1] } : { found: 0, alarms: 0 };
  }

  // As many digits as tell a probability from 0 and 1.
  function digitsOf(threshold) {
    const nearest = Math.min(threshold, 1 - threshold);
    if (nearest <= 0) return String(threshold);
    return threshold.toFixed(Math.min(9, 2 - Math.floor(Math.log10(nearest))));
  }

  function tell(row, model, counts) {
    const { found, alarms } = counts;
    const cells = [
      found, model.damaged - found, alarms, percent(found, model.damaged),
      percent(alarms, model.sound), percent(found, found + alarms),
    ];
    cells.forEach((text, place) => {
      row.cells[place + 1].textContent = typeof text === "number" ? text.toLocaleString("en") : text;
    });
  }

  function mark(name, points) {
    const figure = document.getElementById("figure-" + name);
    models.forEach((model, place) => {
      const trace = figure.data.findIndex((one) => one.name === model.title + ": slider");
      const point = points[place];
      const change = point ? { x: [[point[0]]], y: [[point[1]]], visible: true } : { visible: false };
      Plotly.restyle(figure, change, [trace]);
    });
  }

  function show(counts) {
    models.forEach((model, place) => tell(rows[place], model, counts[place]));
  }

  function move() {
    const threshold = thresholds[slider.value];
    const counts = models.map((model) => countsAt(model, threshold));
    shown.textContent = digitsOf(threshold);
    show(counts);
    mark("precision-recall", models.map((model, place) => {
      const { found, alarms } = counts[place];
      return [share(found, model.damaged), share(found, found + alarms)];
    }));
    mark("roc", models.map((model, place) => {
      const { found, alarms } = counts[place];
      return [share(alarms, model.sound), share(found, model.damaged)];
    }));
  }

  function reset() {
    const own = models[models.length - 1].threshold;
    const above = thresholds.findIndex((threshold) => threshold >= own);
    slider.value = above < 0 ? thresholds.length - 1 : above;
    shown.textContent = models.map((model) => digitsOf(model.threshold) + " (" + model.title + ")").join(", ");
    show(models);
    for (const name of ["precision-recall", "roc"]) mark(name, models.map(() => null));
  }

  slider.addEventListener("input", move);
  document.getElementById("threshold-reset").addEventListener("click", reset);
  window.addEventListener("load", reset);
})();
