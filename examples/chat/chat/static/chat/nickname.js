// The dialog in which a nickname is chosen. Tells the page with a "nickname" event on the document.
(() => {
  "use strict";

  const dialog = document.getElementById("nickname");
  const form = dialog.querySelector("form");
  const field = form.elements.nickname;
  const error = form.querySelector(".error");
  const cancel = form.querySelector("[value=cancel]");
  const me = document.body.dataset;

  function show() {
    document.querySelectorAll(".me").forEach((button) => {
      button.textContent = me.nickname || "Choose a nickname";
      button.title = me.nickname ? "Change your nickname" : "";
    });
    cancel.hidden = !me.nickname;
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-action=nickname]")) ask();
  });

  function ask() {
    if (dialog.open) return;
    field.value = me.nickname;
    error.textContent = "";
    dialog.showModal();
    field.select();
  }

  cancel.addEventListener("click", () => dialog.close());

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let answer;
    try {
      const response = await fetch(form.action, {method: "POST", body: new FormData(form)});
      answer = await response.json();
    } catch (failure) {
      answer = {error: "The server does not answer. Try again in a moment."};
    }
    if (answer.error) {
      error.textContent = answer.error;
      return;
    }
    me.person = answer.person;
    me.nickname = answer.nickname;
    show();
    dialog.close();
    document.dispatchEvent(new Event("nickname"));
  });

  document.addEventListener("ask-nickname", ask);
  show();
})();
