"""Check the subject of a commit: `scope: imperative subject`, at most 72 characters, no period.

python -m hack.check.commit_message FILE          the message in a file, as git's commit-msg hook passes it
python -m hack.check.commit_message --range A..B  every commit of a range
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

LONGEST_SUBJECT = 72
_SUBJECT = re.compile(r"[a-z0-9][a-z0-9 ,./_-]*: \S.*")
_BY_GIT = re.compile(r"(Merge|Revert|fixup!|squash!|amend!) ?")
_THIRD_PERSON = re.compile(r"(adds|fixes|removes|updates|changes|makes|moves|renames|uses)\b", re.IGNORECASE)
_PAST = re.compile(r"(added|fixed|removed|updated|changed|made|moved|renamed|used)\b", re.IGNORECASE)


def problems(message: str) -> list[str]:
    """Returns what is wrong with the subject of a message and with the line below it."""
    lines = [line for line in message.splitlines() if not line.startswith("#")]
    subject = lines[0] if lines else ""
    if _BY_GIT.match(subject):
        return []
    found: list[str] = []
    if not _SUBJECT.fullmatch(subject):
        found.append("the subject must be `scope: subject`, such as `cache: wait for own writes on indexed lists`")
    if len(subject) > LONGEST_SUBJECT:
        found.append(f"the subject has {len(subject)} characters, at most {LONGEST_SUBJECT} are allowed")
    if subject.endswith("."):
        found.append("the subject must not end with a period")
    words = subject.partition(": ")[2]
    if _THIRD_PERSON.match(words) or _PAST.match(words):
        found.append(f"the subject must be imperative: 'add', not '{words.split()[0]}'")
    if len(lines) > 1 and lines[1].strip():
        found.append("the line below the subject must be empty")
    return found


def _messages(commits: str) -> list[str]:
    command = ["git", "log", "--no-merges", "--format=%B%x00", commits]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [message.strip() for message in text.split("\0") if message.strip()]


def main() -> int:
    """Checks one message or the messages of a range; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="file with one message")
    parser.add_argument("--range", dest="commits", help="commits as `git log` takes them")
    arguments = parser.parse_args()
    if (arguments.file is None) == (arguments.commits is None):
        parser.error("pass a file or --range")
    if arguments.commits is not None:
        messages = _messages(arguments.commits)
    else:
        messages = [arguments.file.read_text(encoding="utf-8")]
    found = [f"{message.splitlines()[0]}: {problem}" for message in messages for problem in problems(message)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
