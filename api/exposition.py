"""The text format of Prometheus: the figures of one process under its name, and the texts of several processes as one."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_HEAD: Final = re.compile(rb"^(# HELP (\S+) .*\n# TYPE .*\n)", re.MULTILINE)


class Exposition(NamedTuple):
    """The figures of a process as texts: those that anybody may read, and those that name directories and consumers."""

    nameless: bytes
    named: bytes


@dataclass(frozen=True, slots=True)
class _Families(Collector):
    """Metric families, as the library wants them."""

    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def text_of(families: Iterable[Metric]) -> bytes:
    """Metric families as text."""
    return generate_latest(_Families(families))


def text_of_process(process: str, registries: Iterable[Collector]) -> bytes:
    """All figures of these registries as text, each sample with a label `process`."""
    return text_of(_labelled(process, registries))


def _labelled(process: str, registries: Iterable[Collector]) -> Iterator[Metric]:
    for registry in registries:
        for family in registry.collect():
            family.samples = [sample._replace(labels={**sample.labels, "process": process}) for sample in family.samples]
            yield family


def merged(texts: Iterable[bytes]) -> bytes:
    """One text with each family once: Prometheus refuses a second HELP or TYPE of a name, and samples that stand apart."""
    heads, samples = dict[bytes, bytes](), defaultdict[bytes, list[bytes]](list)
    for text in texts:
        parts = _HEAD.split(text)[1:]
        for head, name, lines in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            heads.setdefault(name, head)
            samples[name].append(lines)
    return b"".join(head + b"".join(samples[name]) for name, head in heads.items())
