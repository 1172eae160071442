// An invite link is an address behind "#". Redirects keep it; forms and links of these pages do so here.
for (const link of document.querySelectorAll('a[href="/login"], a[href="/register"]')) link.hash = location.hash;
for (const form of document.forms) form.action = form.getAttribute("action") + location.hash;
