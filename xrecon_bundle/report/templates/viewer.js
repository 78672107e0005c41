"use strict";
(async () => {
  // HU: the window's ends, and from where on the rendering is not transparent.
  const WINDOWS = { Lung: [-1350, 150, -300], Mediastinum: [-135, 215, -100], Bone: [-450, 1050, 180] };
  const PLANES = { All: 3, Axial: 0, Coronal: 1, Sagittal: 2, "3D": 4 };
  const AXES = ["Sagittal", "Coronal", "Axial"]; // what a step along x, y and z (RAS) moves through
  const OPACITY = { volume: 1, labels: 0.45, deviation: 0.8 };
  const DEVIATION_COLOURS = ["#0d0887", "#7e03a8", "#cc4778", "#f89540", "#f0f921"]; // from 0 HU upwards; plasma
  const GRID = 2;
  const element = (id) => document.getElementById(id);
  const layers = JSON.parse(element("settings").textContent);
  const data = [...document.querySelectorAll("script.data")].map((node) => node.textContent);
  const message = element("message");

  const button = (parent, text, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", act);
    element(parent).append(made);
    return made;
  };
  const press = (parent, chosen) => {
    for (const one of element(parent).querySelectorAll("button")) one.setAttribute("aria-pressed", one === chosen);
  };

  const labelTable = (labels) => {
    const size = Math.max(1, ...labels.map((label) => label.value)) + 1;
    const table = { R: [], G: [], B: [], A: [], I: [], labels: [] };
    for (let value = 0; value < size; value++) {
      const found = labels.find((label) => label.value === value);
      const colour = found ? parseInt(found.colour.slice(1), 16) : 0;
      table.R.push(colour >> 16);
      table.G.push((colour >> 8) & 255);
      table.B.push(colour & 255);
      table.A.push(found ? 255 : 0);
      table.I.push(value);
      table.labels.push(found ? found.name : "");
    }
    return table;
  };

  const load = async (index) => {
    const layer = layers[index];
    const options = { base64: data[index], name: `${index}.nii.gz`, colormap: "gray" };
    if (layer.kind === "deviation") Object.assign(options, { colormap: "Deviation", cal_min: 0, cal_max: layer.top });
    const image = await niivue.NVImage.loadFromBase64(options);
    if (layer.kind === "labels") image.setColormapLabel(labelTable(layer.labels));
    image.opacity = OPACITY[layer.kind];
    return image;
  };

  const nv = new niivue.Niivue({
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.31, 0.64, 1, 0.6],
    crosshairWidth: 1.2,
    crosshairWidthUnit: "mm",
    multiplanarLayout: GRID,
    multiplanarEqualSize: true,
    fontColor: [0.45, 0.72, 1, 1], // seen on bright tissue and on air
    multiplanarForceRender: true,
    multiplanarShowRender: 1,
    dragAndDropEnabled: false,
    isNearestInterpolation: false,
    showAllOrientationMarkers: true,
    loadingText: "",
    logLevel: "error",
    clipPlaneHotKey: "",
    cycleClipPlaneHotKey: "",
    viewModeHotKey: "",
  });
  window.viewer = nv;
  try {
    await nv.attachToCanvas(element("view"));
    if (!nv.gl) throw new Error("no WebGL2");
  } catch (error) {
    message.textContent = `This browser cannot draw the CT (${error.message}): it needs WebGL2.`;
    return;
  }
  nv.setSliceType(PLANES.All);

  const channel = (bits) => DEVIATION_COLOURS.map((colour) => (parseInt(colour.slice(1), 16) >> bits) & 255);
  nv.addColormap("Deviation", { R: channel(16), G: channel(8), B: channel(0), A: [0, 110, 190, 230, 255], I: [0, 64, 128, 191, 255] });
  const images = [];
  for (let index = 0; index < layers.length; index++) images.push(await load(index));
  let base = 0;
  let window_ = "Lung";
  // A label map and a deviation at once hide each other: the deviation waits until it is asked for.
  const mapped = layers.some((layer) => layer.kind === "labels");
  const shown = new Set([...layers.keys()].filter((index) => !(mapped && layers[index].kind === "deviation")));
  const boxes = new Map();
  const follow = () => {
    for (const [index, box] of boxes) {
      if (!layers[index].of) continue;
      box.checked = layers[index].of === layers[base].name;
      if (box.checked) shown.add(index);
      else shown.delete(index);
    }
  };

  const apply = () => {
    const image = images[base];
    image.colormap = window_;
    [image.cal_min, image.cal_max] = WINDOWS[window_];
    const above = [...layers.keys()].filter((index) => layers[index].kind !== "volume" && shown.has(index));
    nv.back = image;
    nv.overlays = above.map((index) => images[index]);
    nv.volumes = [image, ...nv.overlays];
    nv.updateGLVolume();
    nv.drawScene();
    nv.createOnLocationChange();
  };

  const volumes = [...layers.keys()].filter((index) => layers[index].kind === "volume");
  if (volumes.length > 1) element("volumes").hidden = false;
  for (const index of volumes) {
    const made = button("volumes", layers[index].name, () => {
      base = index;
      press("volumes", made);
      follow();
      apply();
    });
    if (index === 0) press("volumes", made);
  }
  for (const [name, [low, high, solid]] of Object.entries(WINDOWS)) {
    const from = Math.round((255 * (solid - low)) / (high - low));
    const grey = [0, from, 255];
    nv.addColormap(name, { R: grey, G: grey, B: grey, A: [0, 0, 110], I: grey });
    const made = button("windows", name, () => {
      window_ = name;
      press("windows", made);
      apply();
    });
    made.title = `${low} to ${high} HU`;
    if (name === "Lung") press("windows", made);
  }
  for (const [name, type] of Object.entries(PLANES)) {
    const made = button("planes", name, () => {
      press("planes", made);
      nv.setSliceType(type);
    });
    if (name === "All") press("planes", made);
  }
  const named = new Set(); // what the legend has already
  layers.forEach((layer, index) => {
    if (layer.kind === "volume") return;
    element("overlays").hidden = false;
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = shown.has(index);
    boxes.set(index, box);
    box.addEventListener("change", () => {
      if (box.checked) shown.add(index);
      else shown.delete(index);
      apply();
    });
    const opacity = document.createElement("input");
    Object.assign(opacity, { type: "range", min: 0, max: 100, value: 100 * images[index].opacity, title: "opacity", ariaLabel: `Opacity of ${layer.name}` });
    opacity.addEventListener("input", () => {
      images[index].opacity = opacity.value / 100;
      apply();
    });
    label.append(box, layer.name);
    const pair = document.createElement("span");
    pair.append(label, opacity);
    element("overlays").append(pair);
    const line = (patch, ...texts) => {
      const made = document.createElement("span");
      made.append(...texts.slice(0, -1), patch, texts.at(-1));
      element("legend").append(made);
    };
    const patch = (background) => {
      const made = document.createElement("i");
      made.style.background = background;
      return made;
    };
    if (layer.kind === "labels") {
      for (const entry of layer.labels) if (!named.has(entry.colour + entry.name)) line(patch(entry.colour), entry.name);
      for (const entry of layer.labels) named.add(entry.colour + entry.name);
    }
    else {
      const bar = patch(`linear-gradient(to right, transparent, ${DEVIATION_COLOURS.slice(1).join(", ")})`);
      bar.className = "wide";
      line(bar, `${layer.name} 0 `, `${layer.top} HU and more`);
    }
  });

  follow();

  const size = images[0].dimsRAS.slice(1, 4);
  const sliders = AXES.map((name, axis) => {
    const label = document.createElement("label");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: size[axis] - 1, step: 1 });
    slider.addEventListener("input", () => {
      nv.scene.crosshairPos[axis] = (Number(slider.value) + 0.5) / size[axis];
      nv.drawScene();
      nv.createOnLocationChange();
    });
    label.append(name, slider);
    element("sliders").append(label);
    return slider;
  });
  nv.onLocationChange = (location) => {
    location.vox.forEach((at, axis) => (sliders[axis].value = at));
    const [x, y, z] = location.mm;
    const hu = location.values[0] ? `${Math.round(location.values[0].value)} HU` : "";
    const names = location.values.slice(1).map((value) => {
      const layer = layers[Number.parseInt(value.name, 10)];
      if (layer.kind === "deviation") return `${layer.name} ${Math.round(value.value)} HU`;
      const found = layer.labels.find((label) => label.value === Math.round(value.value));
      return found ? found.name : "";
    });
    const side = (value, low, high) => `${Math.abs(value).toFixed(0)} ${value < 0 ? low : high}`;
    const place = `${side(x, "L", "R")}, ${side(y, "P", "A")}, ${side(z, "I", "S")} mm`;
    element("place").textContent = [place, hu, ...names].filter(Boolean).join(" · ");
  };
  await nv.setVolumeRenderIllumination(0.5);
  nv.setRenderAzimuthElevation(160, 10);
  apply();
  message.textContent = "";
  document.body.dataset.ready = "true";
})();
