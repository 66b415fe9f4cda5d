"""Records of other programs -> rows: the table of formats. A file has one format, that of its first record."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mflamingo_cli.styles import CAPTION_STYLES
from mflamingo_cli.train.data.row import AudioPart, QuestionAnswer, RowError, TrainingRow

Record = Mapping[str, Any]

ROWS = "mflamingo-rows/1"  # what our own records call their format
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
PLACEHOLDER = re.compile(r"<(?:audio|sound|speech)(?:-\d+)?>\n?")  # ms-swift, LLaMA-Factory; LLaVA's, which numbers several songs
AUDIO_KEYS = ("audio", "audios", "sound", "audio_path")
PART_KEYS = ("audio_url", "audio", "input_audio")  # types of parts that are audio, and where their address is
SUFFIXES = ("", ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".2min.mp3")  # the last is MTG-Jamendo's, in Song Describer
CAPTION_COLUMNS = ("caption", "text", "description")


@dataclass(frozen=True)
class Files:
    """Where the audio of a file's records is looked for: in `roots`, in this order."""

    roots: tuple[Path, ...]

    def find(self, names: Sequence[str]) -> Path:
        """Return the first file of these names, with the suffixes of audio behind those that have none. Raises ValueError."""
        for name in names:
            for root in self.roots:
                for suffix in SUFFIXES:
                    path = root / f"{name}{suffix}"
                    if path.is_file():
                        return path
        raise ValueError(f"no file {names[0]} in {', '.join(map(str, self.roots))}")


@dataclass(frozen=True)
class RowFormat:
    """One layout of records: where it is described, how it is recognised, how it is read (ValueError says what is wrong)."""

    name: str
    source: str
    matches: Callable[[Record], bool]
    read: Callable[[Record, Files, str], TrainingRow]


def recognise(record: Record) -> RowFormat | None:
    """Return the format of a record, or None."""
    return next((row for row in FORMATS if row.matches(record)), None)


def read(layout: RowFormat, record: Record, files: Files, place: str) -> TrainingRow:
    """Read a record. Raises RowError that names the place."""
    try:
        row = layout.read(record, files, place)
    except ValueError as error:
        raise RowError(place, str(error)) from None
    except (AttributeError, KeyError, TypeError):  # of a record that is shaped otherwise than the first one
        raise RowError(place, f"the record does not have the format of this file, {layout.name}") from None
    if any(not exchange.question.strip() and exchange.answer is None for exchange in row.exchanges):
        raise RowError(place, "a question is empty")
    if any(exchange.answer is not None and not exchange.answer.strip() for exchange in row.exchanges):
        raise RowError(place, "an answer is empty")
    return row


# --- conversations --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """One message in plain words."""

    role: str
    text: str
    learned: bool = True


def _conversation(
    record: Record, files: Files, place: str, said: Iterable[Said], addresses: Sequence[Any], extra: Iterable[str]
) -> TrainingRow:
    """Return the row of a conversation whose audio stands beside it."""
    system, exchanges, question = None, [], None
    said, marks = list(said), 0
    for message in said:
        marks += len(PLACEHOLDER.findall(message.text)) if message.role == "user" else 0
        if message.role == "system":
            if exchanges or question is not None or system is not None:
                raise ValueError("only one system message is allowed, at the beginning")
            system = message.text
        elif message.role == "user":
            if question is not None:
                raise ValueError("two questions follow each other without an answer")
            question = PLACEHOLDER.sub("", message.text).strip()
        elif question is None:
            raise ValueError("an answer without a question")
        else:
            exchanges.append(QuestionAnswer(question, message.text, message.learned))
            question = None
    if question is not None:
        exchanges.append(QuestionAnswer(question, None))
    if not exchanges:
        raise ValueError("there is no question")
    if len(addresses) > 1:
        raise ValueError(f"{len(addresses)} songs in one conversation; these models take one")
    if marks and marks != len(addresses):
        raise ValueError(f"the text has {marks} audio placeholders, but there are {len(addresses)} files")
    audio = _part(record, files, addresses[0]) if addresses else None
    return TrainingRow(tuple(exchanges), audio, place, system, {key: record[key] for key in extra if record.get(key) is not None})


def _part(record: Record, files: Files, address: Any) -> AudioPart:
    if isinstance(address, Mapping):
        if address.get("data"):  # OpenAI's input_audio
            raise ValueError("its audio is in the record, as base64; write it to a file and name the file")
        address = address.get("path") or address.get("url") or address.get("bytes") or address
    if not isinstance(address, str):
        raise ValueError("its audio is not a file path")
    if "://" in address and not address.startswith("file://"):
        raise ValueError(f"{address} is a URL; download it and name the file")
    return AudioPart(files.find([address.removeprefix("file://")]), _seconds(record, "start") or 0.0, _seconds(record, "end"))


def _seconds(record: Record, name: str) -> float | None:
    """Return a time of a record, None where it has none. Raises ValueError for what is no time in a song."""
    if (value := record.get(name)) is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise ValueError(f"{name} is {str(value)[:20]!r}, which is not a time in seconds")
    return seconds


def _addresses(record: Record) -> list[Any]:
    """Return the audio that stands beside the messages of a record."""
    for key in AUDIO_KEYS:
        if record.get(key):
            return list(record[key]) if isinstance(record[key], list) else [record[key]]
    return []


def _messages(items: Sequence[Mapping[str, Any]], role: str, content: str, parts: list[Any]) -> Iterator[Said]:
    """Yield messages in plain words; audio among their parts is added to `parts`."""
    for item in items:
        name = ROLES.get(str(item[role]))
        if name is None:
            raise ValueError(f"role {item[role]!r} is not one of {', '.join(ROLES)}")
        value = item[content]
        if isinstance(value, list):
            value = "".join(_text_of(part, parts) for part in value)
        if not isinstance(value, str):
            raise ValueError("the content of a message must be text or a list of parts")
        yield Said(name, value, item.get("loss") is not False)


def _text_of(part: Mapping[str, Any], parts: list[Any]) -> str:
    if part["type"] == "text":
        return str(part["text"])
    if part["type"] in PART_KEYS:
        parts.append(next((part[key] for key in (*PART_KEYS, "path", "url") if part.get(key)), None))
        return ""
    raise ValueError(f"parts of type {part['type']!r} are not supported")


def _read_messages(record: Record, files: Files, place: str) -> TrainingRow:
    parts: list[Any] = []
    said = list(_messages(record["messages"], "role", "content", parts))
    return _conversation(record, files, place, said, _addresses(record) or parts, EXTRA)


def _read_prompt(record: Record, files: Files, place: str) -> TrainingRow:
    """TRL's prompt and completion: text, or messages."""
    parts: list[Any] = []
    said: list[Said] = []
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        value = record.get(key)
        if isinstance(value, str):
            said.append(Said(role, value))
        elif value is not None:
            said += _messages(value, "role", "content", parts)
    return _conversation(record, files, place, said, _addresses(record) or parts, EXTRA)


def _read_sharegpt(record: Record, files: Files, place: str) -> TrainingRow:
    said = list(_messages(record["conversations"], "from", "value", []))
    if record.get("system"):
        said.insert(0, Said("system", record["system"]))
    return _conversation(record, files, place, said, _addresses(record), EXTRA)


def _read_query(record: Record, files: Files, place: str) -> TrainingRow:
    """ms-swift's older layout: query, response, history."""
    turns = [*(record.get("history") or []), (record["query"], record.get("response"))]
    said = [Said("system", record["system"])] if record.get("system") else []
    for question, answer in turns:
        said += [Said("user", question)] + ([Said("assistant", answer)] if answer is not None else [])
    return _conversation(record, files, place, said, _addresses(record), EXTRA)


def _read_pairs(record: Record, files: Files, place: str) -> TrainingRow:
    """ms-swift's sharegpt: pairs of what the human and the assistant say."""
    *before, (query, response) = [(turn["human"], turn.get("assistant")) for turn in record["conversation"]]
    return _read_query({**record, "history": before, "query": query, "response": response}, files, place)


def _read_alpaca(record: Record, files: Files, place: str) -> TrainingRow:
    query = "\n".join(part for part in (record["instruction"], record.get("input")) if part)
    return _read_query({**record, "query": query, "response": record["output"]}, files, place)


# --- captions and questions about named recordings ------------------------------------------------------------------------


def _about(files: Files, place: str, names: Sequence[str], question: str, answer: str, extra: Record | None = None) -> TrainingRow:
    return TrainingRow((QuestionAnswer(question, str(answer)),), AudioPart(files.find(names)), place, None, extra or {})


def _read_musiccaps(record: Record, files: Files, place: str) -> TrainingRow:
    extra = {"split": "test" if _is_true(record.get("is_audioset_eval")) else "train"}
    return _about(files, place, youtube_names(record), CAPTION_STYLES["full"], record["caption"], extra)


def youtube_names(record: Record) -> list[str]:
    """Names that cut clips of MusicCaps go by: as LP-MusicCaps and MuChoMusic store them, and plain."""
    name = record["ytid"]
    cut = [f"[{name}]-[{record['start_s']}-{record['end_s']}]"] if "start_s" in record else []
    return [*cut, name]


def split_of(record: Record) -> str | None:
    """Return the split that a record says it is of; clips of MusicCaps that AudioSet evaluates on are of `test`."""
    split = record.get("split") or ("test" if _is_true(record.get("is_audioset_eval")) else None)
    return None if split is None else str(split)


def _is_true(value: Any) -> bool:
    return str(value).lower() in ("true", "1")


def _read_lp_musiccaps(record: Record, files: Files, place: str) -> TrainingRow:
    name, column = record.get("track_id") or record["fname"], "caption_writing" if record.get("caption_writing") else "caption_ground_truth"
    return _about(files, place, [str(name)], CAPTION_STYLES["full"], record[column])


def _read_music_instruct(record: Record, files: Files, place: str) -> TrainingRow:
    extra = {"split": "test" if _is_true(record.get("is_audioset_eval")) else "train"}
    return _about(files, place, youtube_names(record), record["question"], record["answer"], extra)


def _read_song_describer(record: Record, files: Files, place: str) -> TrainingRow:
    stem = str(record["path"]).rpartition(".")[0]
    return _about(files, place, [str(record["path"]), stem, Path(stem).name], CAPTION_STYLES["full"], record["caption"])


def _read_audiofolder(record: Record, files: Files, place: str) -> TrainingRow:
    names = [str(record["file_name"])]
    if record.get("question"):
        return _about(files, place, names, record["question"], record["answer"])
    column = next((name for name in CAPTION_COLUMNS if record.get(name)), None)
    if column is None:
        raise ValueError(f"needs columns beside file_name: question and answer, or one of {', '.join(CAPTION_COLUMNS)}")
    return _about(files, place, names, CAPTION_STYLES["full"], record[column])


EXTRA = ("id", "task", "choices", "answer", "solution", "facts", "tags", "group", "split", "provenance", "duration")


def _has(*keys: str) -> Callable[[Record], bool]:
    return lambda record: all(key in record for key in keys)


def _has_parts(record: Record) -> bool:
    """Whether the messages of a record are lists of parts."""
    items = record.get("messages")
    return isinstance(items, list) and any(isinstance(item, dict) and isinstance(item.get("content"), list) for item in items)


FORMATS: tuple[RowFormat, ...] = (  # the first that matches is taken
    RowFormat("rows of mflamingo", "mflamingo_cli/train/README.md", lambda record: record.get("format") == ROWS, _read_messages),
    RowFormat(
        "AF3 / LLaVA JSON",
        "github.com/NVIDIA/audio-flamingo, branch audio_flamingo_3, README",
        lambda record: "conversations" in record and ("sound" in record or "audios" not in record),
        _read_sharegpt,
    ),
    RowFormat(
        "LLaMA-Factory sharegpt", "github.com/hiyouga/LLaMA-Factory, data/README.md", _has("conversations", "audios"), _read_sharegpt
    ),
    RowFormat("OpenAI content parts", "platform.openai.com/docs/api-reference/chat", _has_parts, _read_messages),
    RowFormat(
        "ms-swift",
        "github.com/modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md",
        lambda record: "messages" in record and any(key in record for key in AUDIO_KEYS),
        _read_messages,
    ),
    RowFormat("ms-swift query and response", "github.com/modelscope/ms-swift, as above", _has("query"), _read_query),
    RowFormat("ms-swift sharegpt", "github.com/modelscope/ms-swift, as above", _has("conversation"), _read_pairs),
    RowFormat("Alpaca", "github.com/modelscope/ms-swift, as above", _has("instruction", "output"), _read_alpaca),
    RowFormat("TRL conversational", "huggingface.co/docs/trl/dataset_formats", _has("messages"), _read_messages),
    RowFormat("TRL prompt and completion", "huggingface.co/docs/trl/dataset_formats", _has("prompt"), _read_prompt),
    RowFormat(
        "MusicInstruct",
        "github.com/zihaod/MusiLingo, data/music_data/MusicInstruct",
        _has("ytid", "question", "answer"),
        _read_music_instruct,
    ),
    RowFormat("MusicCaps", "huggingface.co/datasets/google/MusicCaps", _has("ytid", "caption"), _read_musiccaps),
    RowFormat(
        "LP-MusicCaps",
        "github.com/seungheondoh/lp-music-caps",
        lambda record: "caption_writing" in record or "caption_ground_truth" in record,
        _read_lp_musiccaps,
    ),
    RowFormat("Song Describer", "github.com/mulab-mir/song-describer-dataset", _has("caption_id", "caption", "path"), _read_song_describer),
    RowFormat("audiofolder", "huggingface.co/docs/datasets/audio_dataset", _has("file_name"), _read_audiofolder),
)
