"""A code as one line of text that can be copied, edited and read back: `x=0.5, y=0.25, shape=heart`.

Blocks that are views (learned directions) do not say everything about a code; such a code is a list of its numbers.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from torch import Tensor

from disentkit.codes import Block, CodeSpace


def labels_of(block: Block) -> list[str]:
    """The words for a one-hot block's vertices; their numbers where it has none."""
    return list(block.labels or map(str, range(block.size)))


def vertex(value: Tensor) -> int | None:
    """Which vertex of the simplex a one-hot value (size,) is, or None where it is soft."""
    value = value.flatten()
    top = int(value.argmax())
    return top if torch.equal(value, torch.nn.functional.one_hot(torch.tensor(top), len(value)).to(value)) else None


def write(codes: CodeSpace, code: Tensor) -> str:
    """The text of a code (1, D). `read` gives the very same numbers back."""
    if not _told_by_blocks(codes):
        return _numbers(code)
    return ", ".join(f"{block.name}={_value(block, block.read(code)[0])}" for block in codes)


def read(codes: CodeSpace, text: str, code: Tensor) -> Tensor:
    """The code (1, D) that `text` describes: a list of all D numbers, or `name=value` pairs, which change `code` there.

    Raises ValueError that says which part could not be read.
    """
    if not isinstance(text, str):
        raise ValueError(f"a code is written as text, for example z0=0.5, not {type(text).__name__}")
    if "=" not in text:
        return _list(text, (1, codes.size), "the code")
    for pair in re.split(r",(?![^\[]*\])", text):  # commas outside brackets
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value:
            raise ValueError(f"'{pair.strip()}' is not name=value; write for example {codes.names[0]}=0.5")
        block = codes[name]
        if block.kind == "onehot" and value in labels_of(block):
            one = torch.nn.functional.one_hot(torch.tensor(labels_of(block).index(value)), block.size)
            code = block.write(code, one.float()[None])
        elif block.kind == "onehot" and not value.startswith("["):
            raise ValueError(f"{name}: no '{value}'; it has {', '.join(labels_of(block))}")
        else:
            code = block.write(code, _list(value, (1, *block.shape), name))
    return code


def _told_by_blocks(codes: CodeSpace) -> bool:
    """True where the blocks are plain slices that cover the code once, under names the text can hold."""
    places = sorted(i for block in codes for i in block.at or ())
    plain = all(type(b).read is Block.read and not set(",=[]") & set(b.name) for b in codes)
    return plain and places == list(range(codes.size))


def _value(block: Block, value: Tensor) -> str:
    if block.scalar:
        return _number(value.flatten()[0])
    if block.kind == "onehot" and (top := vertex(value)) is not None:
        labels = labels_of(block)
        if labels.count(labels[top]) == 1 and not set(",=[]") & set(labels[top]):
            return labels[top]
    return _numbers(value)


def _numbers(value: Tensor) -> str:
    return "[" + ", ".join(_number(v) for v in value.flatten()) + "]"


def _number(value: Tensor) -> str:
    return str(np.float32(value.item())).removesuffix(".0")  # the shortest text that gives the same float32


def _list(text: str, shape: tuple[int, ...], what: str) -> Tensor:
    numbers = []
    for word in text.strip().removeprefix("[").removesuffix("]").replace(",", " ").split():
        try:
            numbers.append(float(word))
        except ValueError:
            raise ValueError(f"{what}: '{word}' is not a number") from None
        if not math.isfinite(numbers[-1]):
            raise ValueError(f"{what}: {word} is not a finite number")
    if len(numbers) != math.prod(shape):
        raise ValueError(f"{what} takes {math.prod(shape)} number(s), not {len(numbers)}")
    return torch.tensor(numbers).reshape(shape)
