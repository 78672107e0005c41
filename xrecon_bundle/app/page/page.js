"use strict";
(async () => {
  const POLL_MS = 500;
  const ALIVE_MS = 30000;
  const DOWNLOADS = { "ct.nii.gz": "CT (NIfTI)", "ct.zip": "CT (DICOM)", "ct.json": "Report (JSON)", "segmentation.nii.gz": "Label map (NIfTI)", "segmentation.dcm": "Label map (DICOM SEG)", "segmentation.sr.dcm": "Measures (DICOM SR)", "segmentation.json": "Measures (JSON)" };
  const token = new URLSearchParams(location.search).get("token");
  const element = (id) => document.getElementById(id);
  const show = (id, on) => (element(id).hidden = !on);
  const fail = (text) => (element("error").textContent = text);

  const ask = async (path, method, headers, body) => {
    let answer;
    try {
      answer = await fetch(path, { method, headers: { "X-Xrecon-Token": token, ...headers }, body });
    } catch {
      throw new Error("xrecon app does not answer; is it still running?");
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error || `xrecon app answered ${answer.status}`);
  };
  const api = (what, options = {}) => ask(`/api/${what}`, "POST", { "Content-Type": "application/json" }, JSON.stringify({ session, ...options }));

  let session = "";
  let limits = {};
  let byHand = null; // null: placed by itself; else exchanged, and of both views degrees and mirrored
  const given = new Set();
  const busy = (on) => {
    for (const one of document.querySelectorAll("button, input")) one.disabled = on;
  };
  const guarded = (act) => async () => {
    fail("");
    busy(true);
    try {
      await act();
    } catch (error) {
      fail(error.message);
    }
    busy(false);
  };

  const options = () => ({
    field_of_view_mm: element("field").value || null,
    invert: element("invert").checked,
    accept_any_view: element("accept").checked,
    ...(byHand || {}),
  });
  let found = null;
  const place = async () => {
    const placed = await (await api("place", options())).json();
    const { record } = placed;
    found = {
      exchanged: Boolean(byHand ? byHand.exchanged : record.exchanged),
      orientation: ["pa", "lateral"].map((view) => [record[view].turned, record[view].mirrored]),
    };
    element("placement").src = placed.picture;
    element("warnings").replaceChildren(
      ...placed.warnings.map((text) => {
        const line = document.createElement("li");
        line.textContent = text;
        return line;
      }),
    );
    show("placing", true);
  };
  const change = (act) =>
    guarded(async () => {
      const before = byHand;
      byHand = structuredClone(found);
      act(byHand);
      try {
        await place();
      } catch (error) {
        byHand = before;
        throw error;
      }
    });

  const work = async (what, more, page, canSegment) => {
    show("result", false);
    show("progress", true);
    let state;
    try {
      await api(what, more);
      for (;;) {
        state = await (await api("state")).json();
        element("stage").textContent = state.stage;
        element("share").value = state.share;
        if (state.error) throw new Error(state.error);
        if (!state.running) break;
        await new Promise((done) => setTimeout(done, POLL_MS));
      }
    } finally {
      show("progress", false);
    }
    element("viewer").src = `/view/${session}/${page}`;
    show("result", true);
    element("result").scrollIntoView();
    element("note").textContent = state.note;
    offer(state.results, canSegment);
  };
  const offer = (names, canSegment) => {
    show("segment", canSegment);
    element("downloads").replaceChildren(
      ...names.map((name) => {
        const made = document.createElement("button");
        made.type = "button";
        made.textContent = DOWNLOADS[name];
        made.addEventListener("click", guarded(() => download(name)));
        return made;
      }),
    );
  };
  const download = async (name) => {
    const content = await (await api("download", { name })).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  const take = (box, file) =>
    guarded(async () => {
      const slot = box.dataset.slot;
      const says = box.querySelector("span");
      box.classList.remove("full");
      given.delete(slot);
      show("result", false);
      if (slot !== "ct") show("placing", false);
      if (file.size > limits[slot] * 2 ** 20) throw new Error(`${file.name} has ${Math.round(file.size / 2 ** 20)} MB, ${limits[slot]} are allowed; use the command line`);
      says.textContent = "sending ...";
      try {
        await ask(`/file/${session}/${slot}?name=${encodeURIComponent(file.name)}`, "PUT", {}, file);
      } catch (error) {
        says.textContent = "drop or choose a file";
        throw error;
      }
      says.textContent = file.name;
      box.classList.add("full");
      given.add(slot);
      if (slot === "ct") {
        await work("segment", { of: "given" }, "segmentation.html", false);
      } else if (given.has("pa") && given.has("lateral")) {
        byHand = null;
        await place();
      }
    })();

  for (const box of document.querySelectorAll(".box")) {
    const input = box.querySelector("input");
    input.addEventListener("change", () => {
      const [file] = input.files;
      input.value = "";
      if (file) take(box, file);
    });
    box.addEventListener("dragover", (event) => {
      event.preventDefault();
      box.classList.add("over");
    });
    box.addEventListener("dragleave", () => box.classList.remove("over"));
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      box.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file && !input.disabled) take(box, file);
    });
  }
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
  for (const one of document.querySelectorAll("[data-turn]")) {
    one.addEventListener("click", change((hand) => {
      const view = hand.orientation[one.dataset.turn];
      // The file is turned and then mirrored: after a mirror, a turn to the right is one to the left.
      view[0] = (view[0] + (view[1] ? 270 : 90)) % 360;
    }));
  }
  for (const one of document.querySelectorAll("[data-mirror]")) {
    one.addEventListener("click", change((hand) => {
      const view = hand.orientation[one.dataset.mirror];
      view[1] = !view[1];
    }));
  }
  element("exchange").addEventListener("click", change((hand) => {
    hand.exchanged = !hand.exchanged;
    hand.orientation.reverse();
  }));
  element("automatic").addEventListener("click", guarded(async () => {
    byHand = null;
    await place();
  }));
  for (const id of ["field", "invert", "accept"]) element(id).addEventListener("change", guarded(place));
  element("reconstruct").addEventListener("click", guarded(async () => {
    await work("reconstruct", options(), "ct.html", true);
  }));
  element("segment").addEventListener("click", guarded(async () => {
    await work("segment", { of: "reconstructed" }, "segmentation.html", false);
  }));

  window.addEventListener("pagehide", () => navigator.sendBeacon("/close", JSON.stringify({ token, session })));
  window.addEventListener("pageshow", (event) => event.persisted && location.reload());
  await guarded(async () => {
    ({ session, limits_mb: limits } = await (await api("session")).json());
  })();
  setInterval(() => api("state").catch((error) => fail(error.message)), ALIVE_MS);
  document.body.dataset.ready = "true";
})();
