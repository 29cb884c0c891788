/* Wide tables and drawings scroll in a frame of their own; the keyboard reaches the frame. */
new MutationObserver(() => {
  for (const frame of document.querySelectorAll("p:has(> img[src$='.svg']):not([tabindex]), .md-typeset__scrollwrap:not([tabindex])")) frame.tabIndex = 0
}).observe(document.documentElement, { childList: true, subtree: true })
