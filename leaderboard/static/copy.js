"use strict";
// A button on every command, citation and block of code that copies it; where the page may not use the clipboard, it
// selects the text.
document.querySelectorAll("main pre").forEach((block) => {
  const label = `Copy${block.dataset.copy ? ` ${block.dataset.copy}` : ""}`;
  const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet copy", textContent: label });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent.trimEnd());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(block);
      button.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => (button.textContent = label), 2000);
  });
  const frame = Object.assign(document.createElement("div"), { className: "copyable" });
  block.replaceWith(frame);
  frame.append(block, button);
});
