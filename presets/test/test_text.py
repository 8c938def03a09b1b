"""Incremental decoding and stop strings."""

import random

import pytest
from kaito_presets.inference.detokenizer import IncrementalDetokenizer, StopStrings


def decode_bytes(tokens: "list[int] | tuple[int, ...]") -> str:
    return bytes(tokens).decode("utf-8", errors="replace")


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語テキスト", "🎉 party 👩‍👩‍👧", ""])
def test_chunks_concatenate_to_the_text_without_partial_characters(text: str) -> None:
    decoder = IncrementalDetokenizer(lambda tokens: decode_bytes(list(tokens)))
    pieces = [decoder.push(byte) for byte in text.encode()]
    assert "".join(pieces) + decoder.flush() == text
    assert "\ufffd" not in "".join(pieces)


def test_invalid_bytes_are_emitted_after_a_limit() -> None:
    decoder = IncrementalDetokenizer(lambda tokens: decode_bytes(list(tokens)))
    pieces = [decoder.push(0xFF) for _ in range(40)]
    assert any(pieces)
    assert len("".join(pieces) + decoder.flush()) == 40


def test_stop_strings_are_found_across_chunks() -> None:
    rng = random.Random(3)
    for _ in range(300):
        text = "".join(rng.choices("abc", k=30))
        stops = ["".join(rng.choices("abc", k=rng.randint(2, 4))) for _ in range(2)]
        positions = [text.find(stop) for stop in stops if stop in text]
        stopper = StopStrings(stops)
        found = ""
        for character in text:
            if stopper.found is None:
                found += stopper.push(character)
        if stopper.found is None:
            found += stopper.flush()
        assert (stopper.found in stops) == bool(positions)
        # Of two stop strings the one that is complete first ends the text, as in OpenAI's API.
        ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        assert found == (text[: min(ends)[1]] if ends else text)
