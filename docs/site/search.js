// What is typed into the search, as the index has it: "memoria" finds "memória", "--batch-size" is no operator.
// Material sends its worker the index (type 0) and then what is typed (type 2); both are read on their way.
(() => {
  const ALL = 0, TYPED = 2
  const plain = word => word.normalize("NFD").replace(/\p{M}/gu, "")
  let words = []

  const wordsOf = docs => {
    const found = new Set()
    for (const { title, text } of docs)
      for (const word of `${title} ${text}`.toLowerCase().match(/\p{L}{3,}/gu) ?? []) found.add(word)
    return [...found]
  }

  // A beginning that no word has gets the accents of a word that has it without them.
  const accented = start => {
    if (start.length < 3 || words.some(word => word.startsWith(start))) return start
    const meant = words.find(word => plain(word).startsWith(start))
    return meant ? meant.slice(0, start.length) : start
  }

  const send = Worker.prototype.postMessage
  Worker.prototype.postMessage = function (message, ...rest) {
    if (message?.type === ALL) words = wordsOf(message.data.docs)
    if (message?.type === TYPED) {
      const dashes = /(^|\s)-{2,}|-+(?=\s|$)/g // of an option, or not followed by anything yet
      const typed = message.data.replace(dashes, "$1").replace(/\p{L}+/gu, word => accented(word.toLowerCase()))
      message = { ...message, data: typed }
    }
    return send.call(this, message, ...rest)
  }
})()
