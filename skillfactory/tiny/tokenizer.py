"""The tiny base's tokenizer: a byte-level BPE whose vocabulary holds whole sentences of its world, and whole numbers.

A number up to 99 (with its space and sign) is one token, and so is each sentence of our prompts and phrase banks:
traces become short enough to train on a laptop. Any other text falls back to bytes: every text can be encoded.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

PAD, END = "<|pad|>", "<|end|>"
SPECIAL = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"]
TAGS = [f"<{slash}{name}>" for name in ("answer", "verdict", "think", "sample", "reflect") for slash in ("", "/")]
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# tags of traces with their line ends | other tags | numbers up to 99 | single digits of longer numbers | operators |
# line ends | words up to a mark, kept together
PIECES = (
    r"\n?</?(?:think|sample|reflect)>\n?|<[^<>\n]{1,12}>| ?-?\d{1,2}(?!\d)| ?-?\d| ?[+*/=()\-]|\n+|"
    r"(?:[^\s\d<>+*/=()\-.,:;?!]| (?![\d+\-*/=(<]))*[.,:;?!]|(?:[^\s\d<>+*/=()\-.,:;?!]| (?![\d+\-*/=(<]))+"
)


# Letters and words that a question lists or an answer holds: they stay bytes, so that words can be spelled.
SPELLED = r" ?[a-z][.,]?|(?: ?[a-z]{3,8})+[.,]|[a-z]{3,8}(?: [a-z]{3,8})*"


def build(texts: Iterable[str], phrases: Iterable[str], size: int = 1024) -> Any:
    """A `PreTrainedTokenizerFast` over the pieces of `texts`, then those of `phrases`, padded to `size` tokens.

    `phrases` come last, so that the ids of what the base was trained on do not move when a phrase is changed.
    Raises ValueError where the pieces do not fit.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())

    def spelled(piece: str) -> str:
        return str(byte_level.pre_tokenize_str(piece)[0][0])

    numbers = [f" {n}" for n in range(-99, 100)] + [f"{n}" for n in range(100)] + [f"{n:02}" for n in range(10)]
    operators = [f"{space}{o}" for o in "+-*/=()" for space in ("", " ")]
    counted: Counter[str] = Counter()
    for text in texts:
        counted.update(re.findall(PIECES, text))
    world = sorted(p for p, times in counted.items() if times > 1 and not re.fullmatch(rf" ?-?\d+|{SPELLED}", p))
    more = sorted({piece for phrase in phrases for piece in re.findall(PIECES, phrase)})
    more += [f"{before}{tag}{after}" for tag in TAGS[4:] for before in ("", "\n") for after in ("", "\n")]
    vocabulary = dict.fromkeys(
        [*SPECIAL, *alphabet, *map(spelled, [*TAGS, *operators, *numbers, "\n", "\n\n", *world])]
    )
    vocabulary.update(dict.fromkeys(map(spelled, more)))
    if len(vocabulary) > size:
        raise ValueError(f"{len(vocabulary)} pieces do not fit into {size} tokens; shorten the phrase banks.")
    vocabulary.update(dict.fromkeys(f"<|unused_{i}|>" for i in range(size - len(vocabulary))))

    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(vocabulary)}, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PIECES), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=SPECIAL[2:],
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
