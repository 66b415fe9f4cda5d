"""Which rows a step trains on: rows of similar length packed into sequences, the same ones for a seed on any number of processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mflamingo_cli.train.data.check import RowSize

MOST_BEHIND = 2048  # tokens of text about one song: their mask of attention is that high and as wide as the song with them
BUCKET_PACKS = 16  # sequences whose rows are sorted by length together: little is lost at their ends, and much stays random


def units_of(sizes: Sequence[RowSize], context: int) -> tuple[list[list[int]], list[int]]:
    """Return rows as units of one or of several about one song, which is computed once for all of them, and the tokens of each unit."""
    units: list[list[int]] = []
    n_tokens: list[int] = []
    last: dict[str | None, int] = {}  # how rows begin -> the unit that has room for more of them
    for number, size in enumerate(sizes):
        n_text = size.n_tokens - size.n_audio
        unit = last.get(size.begin)
        if unit is not None and n_tokens[unit] + n_text <= min(context, size.n_audio + MOST_BEHIND):
            units[unit].append(number)
            n_tokens[unit] += n_text
        else:
            units.append([number])
            n_tokens.append(size.n_tokens)
            if size.begin is not None:
                last[size.begin] = len(units) - 1
    return units, n_tokens


class RowPlan:
    """Sequences of at most `context` tokens for every step of every epoch; a row that is longer by itself is the caller's mistake."""

    def __init__(self, lengths: Sequence[int], context: int, seed: int, sequences_per_step: int) -> None:
        self.lengths, self.context, self.seed, self.sequences_per_step = np.asarray(lengths), context, seed, sequences_per_step
        if not len(lengths) or self.lengths.max() > context:
            raise ValueError("there are no rows, or some exceed the context")
        self._epochs: dict[int, list[list[int]]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every row of the first epoch is seen once; the others have about as many."""
        return max(1, len(self._packs(0)) // self.sequences_per_step)

    def at(self, step: int, rank: int = 0, world: int = 1) -> list[list[int]]:
        """Return the sequences of a step for one of several processes, as numbers of units; every process has as many."""
        first = step * self.sequences_per_step + rank * (self.sequences_per_step // world)
        return [self._sequence(first + number) for number in range(self.sequences_per_step // world)]

    def _sequence(self, number: int) -> list[int]:
        epoch = 0
        while number >= len(self._packs(epoch)):
            number -= len(self._packs(epoch))
            epoch += 1
        return self._packs(epoch)[number]

    def _packs(self, epoch: int) -> list[list[int]]:
        if epoch not in self._epochs:
            rng = np.random.default_rng([self.seed, epoch])
            order = rng.permutation(len(self.lengths))
            per_bucket = max(1, round(BUCKET_PACKS * self.context / self.lengths.mean()))
            packs = [pack for at in range(0, len(order), per_bucket) for pack in self._filled(order[at : at + per_bucket])]
            self._epochs[epoch] = [packs[number] for number in rng.permutation(len(packs))]
        return self._epochs[epoch]

    def _filled(self, rows: np.ndarray) -> list[list[int]]:
        """Fill sequences with rows, longest first, each into the fullest one that has room (best fit decreasing)."""
        packs: list[list[int]] = []
        room: list[int] = []
        for row in rows[np.argsort(-self.lengths[rows], kind="stable")]:
            length = int(self.lengths[row])
            fitting = [number for number, left in enumerate(room) if left >= length]
            if fitting:
                chosen = min(fitting, key=lambda number: room[number])
            else:
                chosen = len(packs)
                packs.append([])
                room.append(self.context)
            packs[chosen].append(int(row))
            room[chosen] -= length
        return packs
