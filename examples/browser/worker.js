// Pyodide, NumPy and refnet, in a thread of their own: the page stays alive while they compute.
// Messages to the page: {stage}, {ready: names of the checks}, {result}, {error}. From it: {check: name}.
"use strict";

const PYODIDE = "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/";
const WHEEL = "refnet-0.1.0-py3-none-any.whl";

const tell = (message) => self.postMessage(message);

async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} cannot be had (${response.status}). docs/browser.md says how it is made.`);
  return response;
}

async function start() {
  tell({ stage: "loading Pyodide" });
  try {
    importScripts(PYODIDE + "pyodide.js");
  } catch (error) {
    throw new Error(`Pyodide cannot be had from ${PYODIDE}: ${error.message}`);
  }
  const pyodide = await loadPyodide({ indexURL: PYODIDE });
  tell({ stage: "loading NumPy" });
  await pyodide.loadPackage("numpy");
  tell({ stage: "loading refnet" });
  // Not through micropip: it would look for Numba, which no browser has, and which the definitions do not need.
  pyodide.unpackArchive(await (await fetched(WHEEL)).arrayBuffer(), "wheel");
  pyodide.runPython(await (await fetched("check.py")).text());
  tell({ ready: JSON.parse(pyodide.runPython("names()")) });
  return pyodide;
}

const started = start();
const failed = (error) => tell({ error: error.message ?? String(error) });
started.catch(failed);

self.onmessage = async ({ data }) => {
  try {
    const run = (await started).globals.get("run");
    tell({ result: JSON.parse(run(data.check, (stage) => tell({ stage }))) });
  } catch (error) {
    failed(error);
  }
};
