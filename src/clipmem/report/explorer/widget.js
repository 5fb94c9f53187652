/* The cell of a notebook: the page in a frame without access to the notebook, whose marks go to Python and back. */

function render({ model, el }) {
  el.innerHTML = model.get("html");
  const page = el.querySelector("iframe");
  const post = ({ source, data }) => source === page.contentWindow && Array.isArray(data?.marks) && model.send(data);
  const answer = (message) => page.contentWindow?.postMessage(message, "*"); // the frame has no origin to name
  addEventListener("message", post);
  model.on("msg:custom", answer);
  return () => {
    removeEventListener("message", post);
    model.off("msg:custom", answer);
  };
}

export default { render };
