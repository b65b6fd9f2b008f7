"""What the Front tab's pictures do in the browser: clicks and keys, told to Python as events.

Each script belongs to one ``gr.HTML``, which calls it with its element and ``trigger``. A candidate
that is picked anywhere is marked everywhere through the document's ``candidate`` event, without
drawing anything again. Knows the classes and ``data-`` attributes that the pictures use.
"""

#: Points: a click picks one; on the tab stop of all of them, arrow keys walk (left and right by the
#: horizontal axis, up and down by the vertical) and Enter picks.
POINTS = r"""
const slider = () => element.querySelector('.walk[role=slider]');
const dots = () => [...element.querySelectorAll('.area [data-c]')];
const find = (number) => dots().find((dot) => dot.dataset.c === String(number));
const place = (dot) => dot.tagName === 'BUTTON'
    ? [parseFloat(dot.style.left), parseFloat(dot.style.top)]
    : dot.getAttribute('d').match(/M(-?[\d.]+) (-?[\d.]+)/).slice(1).map(Number);
const words = (dot) => dot.getAttribute('aria-label') ?? dot.querySelector('title').textContent;
const put = (mark, dot) => {
    if (!mark) return;
    mark.hidden = !dot;
    if (dot) [mark.style.left, mark.style.top] = place(dot).map((share) => `${share}%`);
};
const sorted = (first, second) => dots()
    .map((dot) => [dot, place(dot)])
    .sort(([, p], [, q]) => p[first] - q[first] || p[second] - q[second])
    .map(([dot]) => dot);
const said = (text) => { element.querySelector('.said').textContent = text; };
let at = null;

const pick = (dot) => {
    // marked at once; what there is to say of it comes from Python
    document.dispatchEvent(new CustomEvent('candidate', {detail: dot.dataset.c}));
    trigger('click', {candidate: Number(dot.dataset.c)});
};

element.addEventListener('click', (event) => {
    const chosen = event.target.closest('[data-c]');
    if (chosen) pick(chosen);
});
element.addEventListener('focusout', () => { if (slider()) said(''); });
element.addEventListener('keydown', (event) => {
    const stop = slider();
    if (event.target !== stop) return;
    const across = sorted(0, 1);
    const now = find(at) ?? across[Number(stop.getAttribute('aria-valuenow')) - 1];
    if (event.key === 'Enter' || event.key === ' ') {
        event.preventDefault();
        pick(now);
        return;
    }
    const upward = event.key === 'ArrowUp' || event.key === 'ArrowDown';
    const order = upward ? sorted(1, 0).reverse() : across;
    const last = order.length - 1;
    const index = order.indexOf(now);
    const to = {
        ArrowLeft: index - 1, ArrowRight: index + 1, ArrowDown: index - 1, ArrowUp: index + 1,
        PageUp: index - 10, PageDown: index + 10, Home: 0, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const dot = order[Math.min(Math.max(to, 0), last)];
    at = dot.dataset.c;
    stop.setAttribute('aria-valuenow', across.indexOf(dot) + 1);
    stop.setAttribute('aria-valuetext', words(dot));
    put(element.querySelector('.ring'), dot);
    said(words(dot));
});
document.addEventListener('candidate', ({detail}) => {
    const best = element.querySelector('[data-best]')?.dataset.best;
    at = detail === 'best' ? best : String(detail);
    for (const dot of element.querySelectorAll('button[data-c]')) {
        dot.setAttribute('aria-pressed', String(dot.dataset.c === at));
    }
    put(element.querySelector('.ring'), find(at));
});
"""

#: Rows: a click picks one and a heading sorts; the rows are one tab stop, where up and down walk.
ROWS = r"""
const rows = () => [...element.querySelectorAll('tbody button[data-c]')];
const stay = (button) => {
    for (const other of rows()) other.tabIndex = other === button ? 0 : -1;
};
element.addEventListener('click', (event) => {
    const sorted = event.target.closest('[data-sort]');
    if (sorted) return trigger('select', {column: sorted.dataset.sort});
    const chosen = event.target.closest('[data-c]');
    if (!chosen) return;
    document.dispatchEvent(new CustomEvent('candidate', {detail: chosen.dataset.c}));
    trigger('click', {candidate: Number(chosen.dataset.c)});
});
element.addEventListener('keydown', (event) => {
    const all = rows();
    const index = all.indexOf(event.target);
    const to = {
        ArrowUp: index - 1, ArrowDown: index + 1, PageUp: index - 10, PageDown: index + 10,
        Home: 0, End: all.length - 1,
    }[event.key];
    if (index < 0 || to === undefined) return;
    event.preventDefault();
    const next = all[Math.min(Math.max(to, 0), all.length - 1)];
    stay(next);
    next.focus();
});
document.addEventListener('candidate', ({detail}) => {
    const best = element.querySelector('[data-best]')?.dataset.best;
    const number = detail === 'best' ? best : String(detail);
    for (const button of rows()) {
        const chosen = button.dataset.c === number;
        button.setAttribute('aria-pressed', String(chosen));
        if (chosen) stay(button);
    }
});
"""

#: Run with the menu's value: marks the candidate that is looked into in every picture.
MARK_CANDIDATE = """(which) => {
    document.dispatchEvent(new CustomEvent('candidate', {detail: which}));
    return which;
}"""

#: Columns of the strip: clicks, and arrow keys on its tab stop.
COLUMNS = """
element.addEventListener('click', (event) => {
    const column = event.target.closest('[data-q]');
    if (column) trigger('click', {question: Number(column.dataset.q)});
});
element.addEventListener('keydown', (event) => {
    const over = element.querySelector('.es-strip .over');
    if (event.target !== over) return;
    const now = Number(over.getAttribute('aria-valuenow'));
    const last = Number(over.getAttribute('aria-valuemax'));
    const to = {ArrowLeft: now - 1, ArrowRight: now + 1, Home: 1, End: last}[event.key];
    if (to === undefined || to < 1 || to > last) return;
    event.preventDefault();
    trigger('click', {question: to});
});
"""

#: Run with the question's number: moves the strip's marker without drawing the strip again.
MARK_QUESTION = """(question) => {
    const strip = document.querySelector('#strip .es-strip');
    if (strip && question) {
        strip.style.setProperty('--at', (question - 0.5) / Number(strip.dataset.count));
        strip.querySelector('.over').setAttribute('aria-valuenow', question);
    }
    return question;
}"""

#: Saves the file of a hidden download button, once it is there.
SAVE = """() => new Promise((done) => setTimeout(() => {
    document.querySelector('#candidates-file')?.click();
    done();
}, 150))"""
