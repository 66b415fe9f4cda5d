"""A checkpoint's tokenizer as GGUF keys, tokens, types, merges, special ids, chat template; and those of a file checked.

llama.cpp re-implements tokenizers by name; what it would do otherwise than the checkpoint is refused here, not written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr
from typing import Any

from quant.errors import QuantError
from quant.geometry import AudioTokens
from quant.json_files import expect, get, items, read_json, read_text, section
from quant.keys import KEY_TOKENS
from quant.reader import GgufFile
from quant.writer import Value


@dataclass(frozen=True)
class PreTokenizer:
    """How text is split before merges apply: steps of tokenizer.json, each its type and its setting; and whether NFC comes first."""

    steps: tuple[tuple[object, ...], ...]
    nfc: bool


# By llama.cpp's names (`tokenizer.ggml.pre`)
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "qwen2": PreTokenizer(  # words, single digits, punctuation, line ends, white space
        (
            ("Split", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
            ("ByteLevel", False),
        ),
        nfc=True,
    ),
    "smollm": PreTokenizer((("Digits", True), ("ByteLevel", True)), nfc=False),  # single digits, then GPT-2's words
}
SPECIAL_TOKENS: Mapping[str, str] = {"bos": "BOS_ID", "eos": "EOS_ID", "pad": "PAD_ID"}  # of tokenizer_config.json -> names in gguf

# Keys of a file that are read back: gguf's names, which a test compares
KEY_TYPES, KEY_MERGES, KEY_SCORES = "tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.scores"
KEY_MODEL, KEY_PRE, KEY_TEMPLATE = "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template"
MAX_TOKENS = 1 << 19  # Qwen2 has 151,672
MODEL = "gpt2"  # llama.cpp's name of byte-level BPE
REQUIRED = (KEY_MODEL, KEY_PRE, KEY_TOKENS, KEY_TYPES, KEY_MERGES)
PREFIX, ID = "tokenizer.ggml.", "_token_id"  # of keys that name a token


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, without padding."""

    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    pre: str
    special_ids: Mapping[str, int]
    chat_template: str | None

    def keys(self, n_rows: int) -> dict[str, Value]:
        """GGUF keys for an embedding of `n_rows`, which may have more rows than there are tokens."""
        from gguf import Keys, TokenType

        if len(self.tokens) > n_rows:
            raise QuantError(f"the tokenizer has {len(self.tokens)} tokens, the embedding only {n_rows} rows; they do not belong together")
        padding, names = range(len(self.tokens), n_rows), Keys.Tokenizer
        keys: dict[str, Value] = {
            names.MODEL: MODEL,
            names.PRE: self.pre,
            names.LIST: [*self.tokens, *(f"[PAD{index}]" for index in padding)],
            names.TOKEN_TYPE: [*self.types, *(TokenType.UNUSED for _ in padding)],
            names.MERGES: self.merges,
            names.ADD_BOS: False,
        }
        keys |= {getattr(names, SPECIAL_TOKENS[name]): index for name, index in self.special_ids.items()}
        return keys | ({names.CHAT_TEMPLATE: self.chat_template} if self.chat_template is not None else {})


def read(directory: Path, config: Mapping[str, Any]) -> Vocabulary:
    """Read tokenizer.json and its companions. Raises QuantError where there is none, it is damaged, or llama.cpp has none like it."""
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise QuantError(f"{directory}: no tokenizer.json; save the tokenizer into the checkpoint's directory first")
    source = read_json(path)
    model, normalizer = section(path, source, "model"), section(path, source, "normalizer")
    if model.get("type") != "BPE" or not model.get("merges") or model.get("ignore_merges") or model.get("dropout"):
        raise QuantError(f"{path}: not a byte-level BPE tokenizer with merges, as Qwen2's is")
    pre = _pre_tokenizer(path, section(path, source, "pre_tokenizer"))
    if normalizer and (normalizer.get("type") != "NFC" or not PRE_TOKENIZERS[pre].nfc):
        raise QuantError(f"{path}: its normalizer is not that of {pre}; llama.cpp would read text differently")
    tokens, types = _tokens(path, section(path, model, "vocab"), items(path, source, "added_tokens", dict))
    settings_path = directory / "tokenizer_config.json"
    settings = read_json(settings_path, required=False)
    ids = {token: index for index, token in enumerate(tokens)}
    return Vocabulary(
        tokens=tokens,
        types=types,
        merges=_merges(path, model, ids),
        pre=pre,
        special_ids=_special_ids(directory, ids, settings, config),
        chat_template=chat_template(directory, settings),
    )


def chat_template(directory: Path, settings: Mapping[str, Any]) -> str | None:
    """Find the chat template: its own file, or a field of tokenizer_config.json or chat_template.json."""
    path = directory / "chat_template.jinja"
    if path.exists():
        return read_text(path)
    beside = directory / "chat_template.json"
    places = ((directory / "tokenizer_config.json", settings), (beside, read_json(beside, required=False)))
    where, found = next(((path, data["chat_template"]) for path, data in places if data.get("chat_template")), (path, None))
    if isinstance(found, list):  # several, by name
        named = [expect(where, "an item of chat_template", entry, dict) for entry in found]
        found = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    return None if found is None else expect(where, "chat_template", found, str)


def token_ids(where: Path, data: Mapping[str, Any], name: str) -> list[int]:
    """Look up an id of a token, or several; missing and null are none. Raises QuantError for what is no id."""
    value = data.get(name)
    found = [expect(where, name, index, int) for index in (value if isinstance(value, list) else [] if value is None else [value])]
    if any(not 0 <= index < MAX_TOKENS for index in found):
        raise QuantError(f"{where}: {name} is {repr(value)}, not the id of a token")
    return found


def is_control(token: str, special: bool) -> bool:
    """Whether an added token is no text: Qwen2 declares <|fim_prefix|> and its like as ordinary, llama.cpp's own files do not."""
    return special or (token.startswith("<|") and token.endswith("|>"))


def _tokens(path: Path, vocab: Mapping[str, Any], added: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[int]]:
    from gguf import TokenType

    types = {expect(path, repr(token), index, int): (token, TokenType.NORMAL) for token, index in vocab.items()}
    for entry in added:
        token, special = get(path, entry, "content", str, ""), get(path, entry, "special", bool, False)
        control = is_control(token, special)
        types[get(path, entry, "id", int, -1)] = (token, TokenType.CONTROL if control else TokenType.USER_DEFINED)
    if not types or not 0 <= min(types) <= max(types) < MAX_TOKENS:
        raise QuantError(f"{path}: the token ids are not consecutive numbers from 0")
    if any(token == "" or "\0" in token for token, _ in types.values()):
        raise QuantError(f"{path}: a token is empty or contains a null byte")
    n_tokens = max(types) + 1
    if len(types) != n_tokens:  # holes in the ids: as unused as the padding
        types |= {index: (f"[PAD{index}]", TokenType.UNUSED) for index in range(n_tokens) if index not in types}
    ordered = [types[index] for index in range(n_tokens)]
    if len({token for token, _ in ordered}) != n_tokens:
        raise QuantError(f"{path}: two ids share a token")
    return [token for token, _ in ordered], [kind for _, kind in ordered]


def _merges(path: Path, model: Mapping[str, Any], ids: Mapping[str, int]) -> list[str]:
    """Merges as llama.cpp reads them, two tokens with a space between, which make another; new files hold pairs."""
    found = []
    for merge in get(path, model, "merges", list, []):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        halves = [half for half in pair if isinstance(half, str) and half] if isinstance(pair, list) else []
        if len(halves) != 2 or len(pair) != 2 or " " in halves[0] or "".join(halves) not in ids:  # llama.cpp parts at the first space
            raise QuantError(f"{path}: {repr(merge)} is not a merge of two tokens into a third")
        found.append(" ".join(pair))
    return found


def _pre_tokenizer(path: Path, source: Mapping[str, Any]) -> str:
    """llama.cpp's name of a pre-tokenizer. Raises QuantError for one that it has not."""
    steps: list[Mapping[str, Any]] = [*items(path, source, "pretokenizers", dict)] or [source]
    found = tuple(_split_step(path, step) for step in steps)
    name = next((name for name, known in PRE_TOKENIZERS.items() if known.steps == found), None)
    if name is None:
        raise QuantError(f"{path}: its pre-tokenizer is none of {', '.join(PRE_TOKENIZERS)}; llama.cpp would split text differently")
    return name


def _split_step(path: Path, step: Mapping[str, Any]) -> tuple[object, ...]:
    """A step of a pre-tokenizer as `PreTokenizer` has it; other ones are equal to none of those."""
    kind = step.get("type")
    if kind == "Split":
        return kind, get(path, section(path, step, "pattern"), "Regex", str, "")
    if kind == "Digits":
        return kind, get(path, step, "individual_digits", bool, False)
    return (kind, get(path, step, "use_regex", bool, True)) if kind == "ByteLevel" and not step.get("add_prefix_space") else ()


def _special_ids(directory: Path, ids: Mapping[str, int], settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, int]:
    """By name in tokenizer_config.json, else by id in the first configuration that has one."""
    place = directory / "config.json"
    beside = directory / "generation_config.json"
    configs = [(place, section(place, config, "text_config")), (place, config), (beside, read_json(beside, required=False))]
    found: dict[str, int] = {}
    for name in SPECIAL_TOKENS:
        token = settings.get(f"{name}_token")
        token = token.get("content") if isinstance(token, dict) else token
        named = [ids[token]] if isinstance(token, str) and token in ids else []
        candidates = [*named, *(index for where, data in configs for index in token_ids(where, data, f"{name}_token_id")[:1])]
        if candidates:
            found[name] = candidates[0]
    return found


def tokenizer_json(file: GgufFile) -> dict[str, Any]:
    """Return the content of tokenizer.json for a file that was checked: the inverse of `read`."""
    from gguf import TokenType

    keys = file.keys
    pre, types = PRE_TOKENIZERS[keys[KEY_PRE]], keys[KEY_TYPES]
    ids = {token: index for index, token in enumerate(keys[KEY_TOKENS])}
    added = [
        {"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": types[index] == TokenType.CONTROL}
        for token, index in ids.items() if types[index] in (TokenType.CONTROL, TokenType.USER_DEFINED)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [STEPS[str(step[0])](step[1]) for step in pre.steps]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": ids,
                  "merges": [merge.split(" ", 1) for merge in keys[KEY_MERGES]]},
    }  # fmt: skip


STEPS: Mapping[str, Callable[[object], dict[str, Any]]] = {  # of a PreTokenizer, as tokenizer.json has them
    "Split": lambda regex: {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
    "Digits": lambda single: {"type": "Digits", "individual_digits": single},
    "ByteLevel": lambda regex: {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": regex},
}


def check(file: GgufFile, wanted: AudioTokens | None) -> None:
    """Check the vocabulary of a text part, whose keys are of their types, as libllama reads it: at some it ends the process.

    Raises QuantError that names the key.
    """
    keys, where = file.keys, f"{file.path}: "
    for key in REQUIRED:
        if key not in keys:
            raise QuantError(f"{where}lacks the key {key}; convert it again")
    if keys[KEY_MODEL] != MODEL or keys[KEY_PRE] not in PRE_TOKENIZERS:
        names = " or ".join(map(repr, PRE_TOKENIZERS))
        raise QuantError(f"{where}its tokenizer is {keys[KEY_MODEL]!r} with {keys[KEY_PRE]!r}, not {MODEL!r} with {names}")
    tokens = keys[KEY_TOKENS]
    known = set(tokens)
    if len(known) != len(tokens) or "" in known or "\0" in "".join(tokens):
        raise QuantError(f"{where}{KEY_TOKENS} contains a token twice, or one that is empty or contains a null byte; convert it again")
    for key in (KEY_TYPES, KEY_SCORES):
        if len(keys.get(key, tokens)) != len(tokens):
            raise QuantError(f"{where}{key} has {len(keys[key])} items for {len(tokens)} tokens; convert it again")
    for key in (key for key in keys if key.startswith(PREFIX) and key.endswith(ID)):
        if file.types[key] != "I" or keys[key] >= len(tokens):
            raise QuantError(f"{where}{key} is {keys[key]!r}, which is not one of its {len(tokens)} tokens; convert it again")
    for merge in keys[KEY_MERGES]:
        left, _, right = merge.partition(" ")
        if not left or not right or left + right not in known:
            raise QuantError(f"{where}{KEY_MERGES} holds {merge[:40]!r}, which does not produce any of its tokens; convert it again")
    for token in vars(wanted).values() if wanted else ():
        if token is not None and token not in known:
            raise QuantError(f"{where}its tokens lack {token[:40]!r}, which marks audio; it is the text part of another model")
