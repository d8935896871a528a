// Copies in the browser alone. Where the clipboard is refused, the text is shown selected, to be copied by hand.

const SHOWN_MS = 1500;

export default function copyButton({ data, parentElement }) {
  const [button, status, input] = ["button", "[role=status]", "input"].map((one) => parentElement.querySelector(one));
  button.textContent = data.label;
  // Hidden until now: nobody meets a button without a name.
  button.parentElement.hidden = false;
  button.onclick = async () => {
    const text = data.text ?? window.location.href;
    try {
      await navigator.clipboard.writeText(text);
      input.hidden = true;
      button.textContent = status.textContent = "Copied";
      setTimeout(() => {
        button.textContent = data.label;
        status.textContent = "";
      }, SHOWN_MS);
    } catch {
      input.hidden = false;
      input.value = text;
      input.select();
      status.textContent = "The clipboard is not available; the text is selected.";
    }
  };
}
