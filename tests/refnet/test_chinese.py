"""Each Chinese page names the English page that it follows, and has its code: else it is older than that page.

A translation (译自) has all the blocks of the English page, an abridged page (摘自) some of them. Comments are
translated. Chinese text has full-width punctuation, one word for one thing, and lines that end where a space does no
harm: a line's end is shown as a space.
"""

from __future__ import annotations

import re

import pytest

from tests.documentation import ROOT, TEXTS

CHINESE = [page for page in TEXTS if page.startswith("docs/zh/")]
_FOLLOWS = re.compile(r"^(译自|摘自)\s*\[[^\]]+\]\(([^)]+)\)", re.MULTILINE)
_BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """The language and the lines of each block, without comments and what lists pages."""
    found = [(language, _without_comments(code)) for language, code in _BLOCK.findall(text)]
    return [(language, code) for language, code in found if language != "{toctree}"]


def _without_comments(code: str) -> str:
    return "\n".join(re.sub(r"(^|\s+)# .*", "", line).rstrip() for line in code.splitlines())


def english_page(page: str) -> tuple[str, str]:
    """How a Chinese page follows which English one."""
    ((how, target),) = _FOLLOWS.findall(TEXTS[page])
    return how, str((ROOT / page).parent.joinpath(target).resolve().relative_to(ROOT))


def problem_with(chinese: str, english: str, is_whole: bool) -> str | None:
    """Which block of a Chinese page is not that of the English one, or None."""
    ours, theirs = blocks(chinese), blocks(english)
    if is_whole and len(ours) != len(theirs):
        return f"it has {len(ours)} blocks of code, and the English page {len(theirs)}"
    rest = iter(theirs)
    missing = next((code for language, code in ours if (language, code) not in rest), None)
    return None if missing is None else f"the English page has no such block there: {missing}"


def test_there_are_chinese_pages() -> None:
    assert {"docs/zh/first-result.md", "docs/zh/porting.md", "docs/zh/contract.md", "docs/zh/bulk.md"} <= set(CHINESE)


@pytest.mark.parametrize("page", CHINESE)
def test_each_page_has_the_code_of_the_page_that_it_follows(page: str) -> None:
    how, english = english_page(page)
    assert blocks(TEXTS[page])
    assert problem_with(TEXTS[page], TEXTS[english], how == "译自") is None, f"{page} is older than {english}"


#: What the pages call otherwise: 步幅, 空洞卷积, 批归一化, 填充, 逐位一致.
_OTHER_WORDS = re.compile(r"步长|膨胀卷积|扩张卷积|批量归一化|批标准化|补边|比特")
_IDEOGRAPH = "[\u4e00-\u9fff]"
_HALF_WIDTH = re.compile(rf"{_IDEOGRAPH}[,;:!?()]|[,;:!?()]{_IDEOGRAPH}|{_IDEOGRAPH}\.(?!\w)")
_BROKEN = re.compile(rf"{_IDEOGRAPH}\n *{_IDEOGRAPH}")


def faults_of_text(text: str) -> list[str]:
    """What a reader of Chinese stumbles over in a page, code and the targets of links left out."""
    prose = re.sub(r"`[^`\n]*`", "`", re.sub(r"\]\([^)]*\)", "]", _BLOCK.sub("", text)))
    return [found for pattern in (_OTHER_WORDS, _HALF_WIDTH, _BROKEN) for found in pattern.findall(prose)]


@pytest.mark.parametrize("page", CHINESE)
def test_the_text_reads_as_chinese(page: str) -> None:
    assert faults_of_text(TEXTS[page]) == []


def test_what_is_not_chinese_is_found() -> None:
    assert faults_of_text("卷积核的步幅，见[约定](a.md)。`f(x)`\n用 3x3 卷积：`a, b`（1.5 倍）\n") == []
    for fault in ("步长为 2", "卷积,", "卷积(核", "x)卷积", "卷积.", "一个卷\n积核"):
        assert len(faults_of_text(fault)) == 1, fault


def block(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```\n"


def test_a_page_that_is_older_is_found() -> None:
    first, second = block("python", "a = 1  # one"), block("", "refnet demo")
    whole, part = f"{first}text\n{second}", block("python", "a = 1  # 一")
    assert problem_with(part + second, whole, True) is None
    assert problem_with(part, whole, False) is None
    assert "1 blocks" in (problem_with(part, whole, True) or "")
    for other in (block("python", "a = 2"), block("py", "a = 1"), second + part):
        assert problem_with(other, whole, False) is not None
