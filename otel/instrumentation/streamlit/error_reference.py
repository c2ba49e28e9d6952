"""What the user sees below an uncaught error: a calm box whose reference leads support to the trace and the logs."""

from __future__ import annotations

from otel.instrumentation.streamlit import reading
from otel.instrumentation.streamlit.tracing import RunHandle

#: So many digits of the trace id are shown; the button copies all 32.
SHOWN_DIGITS = 8

# Colours are those of the text around it, thinned, so that it suits every theme. `navigator.clipboard` is there only
# by HTTPS and on the own machine; elsewhere the text is copied through a selection.
_BOX = """
<div class="stx-error-reference" data-trace-id="{trace_id}" role="note" style="display:flex;flex-wrap:wrap;
align-items:center;gap:.75rem;padding:.75rem 1rem;border:1px solid rgba(128,132,149,.35);border-radius:.5rem;
font-size:.875rem;line-height:1.5;{place}">
<span style="flex:1 1 16rem">If you ask for help, please give this reference:
<code style="font-size:.875rem;padding:.1rem .35rem;border-radius:.25rem;background:rgba(128,132,149,.16);color:inherit"
>{shown}</code></span>
<button type="button" aria-live="polite" style="font:inherit;color:inherit;cursor:pointer;padding:.25rem .75rem;
border:1px solid rgba(128,132,149,.5);border-radius:.5rem;background:transparent">Copy reference</button>
</div>
<script>
(function () {{{lift}
  document.querySelectorAll('.stx-error-reference[data-trace-id="{trace_id}"] button').forEach(function (button) {{
    button.onclick = async function () {{
      const text = "{trace_id}";
      try {{
        await navigator.clipboard.writeText(text);
      }} catch (error) {{
        const field = document.createElement("textarea");
        field.value = text;
        field.style.position = "fixed";
        field.style.opacity = "0";
        document.body.appendChild(field);
        field.select();
        document.execCommand("copy");
        field.remove();
      }}
      button.textContent = "Copied";
      setTimeout(function () {{ button.textContent = "Copy reference"; }}, 2000);
    }};
  }});
}})();
</script>
"""


_BELOW = "background:rgba(128,132,149,.08)"
# Streamlit shows a compile error in a dialogue above the page as it was before. An element in the page would take the
# place of its first; so the box is sent to the place of toasts, which shows nothing itself, and is lifted from there
# above the dialogue until the next run takes it back.
_ABOVE_ALL = (
    "position:fixed;bottom:1rem;left:50%;transform:translateX(-50%);width:min(44rem,calc(100vw - 2rem));"
    "z-index:2000000;background:#fff;color:#31333f;box-shadow:0 4px 16px rgba(0,0,0,.16);pointer-events:auto"
)
_LIFT = """
  const home = document.querySelector('.stx-error-reference[data-trace-id="{trace_id}"]');
  if (!home) return;
  const lifted = home.cloneNode(true);
  lifted.dataset.reactAriaTopLayer = "true";  // the dialogue makes all else around it inert
  document.body.appendChild(lifted);
  new MutationObserver(function (_, observer) {{
    if (!home.isConnected) {{ lifted.remove(); observer.disconnect(); }}
  }}).observe(document.body, {{ childList: true, subtree: true }});"""


def show_error_reference(handle: RunHandle, *, compiled: bool = True) -> None:
    """Show the reference of a failed run where its script, fragment or callback would show its next element.

    Arguments:
        compiled: False where the script could not be compiled: then it is shown above the page.
    """
    trace_id = handle.trace_id
    if trace_id is not None:
        reading.html_target(in_page=compiled).html(box(trace_id, in_page=compiled), unsafe_allow_javascript=True)


def box(trace_id: str, *, in_page: bool = True) -> str:
    """The box's HTML.

    Arguments:
        trace_id: 32 hex digits.
        in_page: whether it is one of the page's elements; otherwise it floats above the page and its dialogues.
    """
    place, lift = (_BELOW, "") if in_page else (_ABOVE_ALL, _LIFT.format(trace_id=trace_id))
    return _BOX.format(trace_id=trace_id, shown=trace_id[:SHOWN_DIGITS], place=place, lift=lift)
