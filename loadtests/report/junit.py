"""JUnit's XML, as continuous-integration systems read it (the form of Ant's junitreport). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

#: Characters that XML 1.0 cannot hold at all.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One question. failure: why the answer is no; error: why there is no right answer; skipped: why it was not asked.
    """

    group: str
    name: str
    failure: str = ""
    error: str = ""
    skipped: str = ""
    time_s: float = 0.0


def junit_xml(
    suite: str, cases: Sequence[Case], properties: Mapping[str, str] | None = None, time_s: float = 0.0,
    timestamp: str = "",
) -> str:
    """One suite. timestamp: ISO 8601."""
    counts = {
        "tests": len(cases), "failures": sum(bool(case.failure) for case in cases),
        "errors": sum(bool(case.error) for case in cases), "skipped": sum(bool(case.skipped) for case in cases),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element("testsuites", {"name": _clean(suite), **numbers})
    stamp = {"timestamp": timestamp} if timestamp else {}
    about = {"name": _clean(suite), **numbers, "time": f"{time_s:.3f}", **stamp}
    own = ElementTree.SubElement(root, "testsuite", about)
    if properties:
        held = ElementTree.SubElement(own, "properties")
        for name, value in properties.items():
            ElementTree.SubElement(held, "property", {"name": _clean(name), "value": _clean(value)})
    for case in cases:
        place = {"classname": _clean(f"{suite}.{case.group}"), "name": _clean(case.name), "time": f"{case.time_s:.3f}"}
        element = ElementTree.SubElement(own, "testcase", place)
        for kind in ("failure", "error", "skipped"):
            text = getattr(case, kind)
            if text:
                ElementTree.SubElement(element, kind, {"message": _clean(text)})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
