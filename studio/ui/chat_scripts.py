"""What the Chat tab's parts do in the browser: copy, save, and keep the newest words in sight."""

#: A click on an answer's button copies its words; without a clipboard (http), by an older way.
COPY = """
element.addEventListener('click', (event) => {
    const button = event.target.closest('[data-copy]');
    if (!button) return;
    const words = button.closest('li').querySelector('.words').innerText;
    window.esCopy(words).then(() => {
        button.dataset.done = '';
        setTimeout(() => delete button.dataset.done, 1500);
    });
});
"""
#: The newest words stay in sight, unless somebody scrolled up to read.
FOLLOW = (
    COPY
    + """
const talk = element.closest('#talk');
let follows = true;
talk.addEventListener('scroll', () => {
    follows = talk.scrollTop + talk.clientHeight >= talk.scrollHeight - 40;
});
new MutationObserver(() => { if (follows) talk.scrollTop = talk.scrollHeight; })
    .observe(talk, {childList: true, subtree: true, characterData: true});
window.esCopy = async (words) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(words);
    const field = document.body.appendChild(document.createElement('textarea'));
    field.value = words;
    field.select();
    document.execCommand('copy');
    field.remove();
};
"""
)
COPY_ALL = "(words) => { if (words) window.esCopy(words); }"
SAVE = """(words) => {
    if (!words) return;
    const json = words.startsWith('{');
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([words], {type: json ? 'application/json'
        : 'text/markdown'}));
    link.download = 'chat.' + (json ? 'json' : 'md');
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""
