"""Random English sentences from a small vocabulary, chosen to hold all English phonemes often."""

from collections.abc import Sequence

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ADJECTIVES = _words("""
    ancient bitter brave bright broken calm careful cheap clever cloudy cold curious dangerous dark deep distant dusty
    early empty enormous famous fierce foreign fresh gentle golden heavy hollow honest huge hungry joyful large lazy
    lonely loud lucky narrow noisy pale patient polite proud purple quick quiet rough royal sharp shy silver simple
    sleepy smooth strange sudden thick thin thirsty tiny unusual usual vague warm wealthy weird wide wooden yellow young
""")
_NOUNS = _words("""
    actor apple army author baker beach bird boat book bottle boy bridge brother camera captain castle cat chair cheese
    child church city cloud coffee cousin dancer daughter doctor dog dragon engine farmer father feather fish flower
    forest friend garden ghost giraffe glove grandmother guitar hammer harbour horse hospital house island jacket judge
    kettle king kitchen ladder lake lawyer letter lion machine magician market measure mirror monkey moon mother
    mountain mouse museum neighbour newspaper nurse ocean office orange owl painter palace pencil piano picture pilot
    pocket poem potato prince queen rabbit radio river road robot sailor school shepherd ship shoe singer snake
    soldier song station stone storm street student sugar teacher theatre thief thunder tiger tower toy train treasure
    tree uncle valley village violin vision watch water weather whale wheel window winter wizard wolf yacht zebra zoo
""")
_VERBS = _words("""
    admired answered bought broke carried caught chased choked cleaned counted crossed described discovered drew
    enjoyed feared followed forgot found gathered guarded heard helped hid imagined invited judged kicked knew left
    lifted loved measured met missed needed noticed offered opened ordered painted passed pulled pushed reached
    remembered saw searched showed sold stole taught thanked thought threw touched visited voted washed watched wished
""")
_PLACES = _words("""
    above across against along among around behind below beneath beside between beyond by inside near opposite outside
    over past through toward under without
""")
_DETERMINERS = _words("a the this that every another each one his her my your our their some")
_LINKS = _words("and but while because although before after until when so whenever where")
_ADVERBS = _words("""
    again already always angrily carefully easily eagerly finally gladly maybe never often perhaps quickly quietly
    rarely seldom sometimes soon suddenly usually yesterday
""")


def random_text(rng: np.random.Generator, *, num_words: int) -> str:
    """Returns sentences of at least `num_words` words in all."""
    sentences: list[str] = []
    count = 0
    while count < num_words:
        words = _clause(rng)
        if rng.random() < 0.4:
            words += [_one(rng, _LINKS), *_clause(rng)]
        sentences.append(" ".join(words) + _one(rng, [".", ".", ".", "?", "!"]))
        count += len(words)
    return " ".join(sentences)


def _clause(rng: np.random.Generator) -> list[str]:
    words = [*_noun_phrase(rng), _one(rng, _VERBS), *_noun_phrase(rng)]
    if rng.random() < 0.4:
        words.insert(0, _one(rng, _ADVERBS))
    if rng.random() < 0.5:
        words += [_one(rng, _PLACES), *_noun_phrase(rng)]
    return words


def _noun_phrase(rng: np.random.Generator) -> list[str]:
    phrase = [_one(rng, _DETERMINERS), _one(rng, _NOUNS)]
    if rng.random() < 0.5:
        phrase.insert(1, _one(rng, _ADJECTIVES))
    return phrase


def _one(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
