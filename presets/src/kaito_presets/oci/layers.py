"""Unpacks one folder of an image: applies its layers in order (OCI image specification, "Applying changesets").

Called by `adapter_image`. Guarantees that nothing is written or removed outside the target, that only regular
files are written, and that what cannot be written as one (a link that leads out of the folder, a device) is
reported and never left out silently. Layers are input from outside: whatever is in them ends as a RegistryError.
"""

import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final, final

from kaito_presets.errors import RegistryError

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
MOST_LINKS: Final = 40
"""Links followed from one name before it counts as a cycle (Linux: MAXSYMLINKS)."""
MOST_PARTS: Final = 100
"""Folders of one path: Python walks deeper trees no more."""
MOST_COPIES: Final = 10_000
"""Files written for links to folders. A chain of n folders with two links each to the one before stands for 2^n."""


def apply_layer(stream: IO[bytes], tree: Path, path: str) -> list[str]:
    """Apply one layer's changes below `path` to `tree`; returns what could not be written, one text each.

    Raises:
        RegistryError: not an archive, or it holds a path that leads outside.
    """
    content = ImageTree(tree, path)
    content.apply(stream)
    return content.resolve_links()


@final
class ImageTree:
    """The content of the folder `path` of an image, built layer by layer in the directory `tree`."""

    def __init__(self, tree: Path, path: str) -> None:
        self._tree = tree
        self._prefix = PurePosixPath(*PurePosixPath(path.strip("/")).parts)
        self._links: dict[PurePosixPath, str] = {}
        """Symbolic links by their place below the folder; what they lead to is known after the last layer."""
        self._refused: dict[PurePosixPath, str] = {}
        """Entries that cannot be written, each with the words for it."""
        self._added: set[PurePosixPath] = set()
        """What the current layer wrote: its whiteouts hide lower layers only."""

    def apply(self, stream: IO[bytes]) -> None:
        """Apply a layer.

        Raises:
            RegistryError: not an archive, or it holds a path that leads outside.
        """
        self._added = set()
        name = ""
        try:
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for entry in archive:
                    name = entry.name
                    self._apply(archive, entry)
        except (tarfile.TarError, EOFError, zlib.error, RecursionError) as error:
            # tarfile reads a chain of extended headers by recursion.
            raise RegistryError(f"a layer is not a tar archive: {error}") from error
        except (OSError, ValueError) as error:
            raise RegistryError(f"a layer cannot be unpacked at {name!r}: {error}") from error

    def resolve_links(self) -> list[str]:
        """Write what links inside the folder lead to in their place; returns what could not be written.

        Raises:
            RegistryError: the links stand for too many files, or the disk does not take them.
        """
        try:
            return self._write_links()
        except OSError as error:
            raise RegistryError(f"the links of an image cannot be written: {error}") from error

    def _write_links(self) -> list[str]:
        targets = {place: self._resolve(place) for place in sorted(self._links)}
        lost = dict(self._refused)
        folders: dict[PurePosixPath, PurePosixPath] = {}
        for place, target in targets.items():
            if target is None:
                lost[place] = f"{place} links to {self._links[place]!r}, which is not in the folder"
            elif (self._tree / target).is_dir():
                folders[place] = target
            else:
                _same_file(self._tree / target, self._tree / place)
        copies = 0
        # A folder is copied when the links inside it have been written; what is left then holds itself.
        while ready := [
            place for place, target in folders.items() if not any(target == p or target in p.parents for p in folders)
        ]:
            for place in ready:
                source = self._tree / folders.pop(place)
                copies += sum(1 for _ in source.rglob("*"))
                if copies > MOST_COPIES:
                    raise RegistryError(f"the links of an image stand for more than {MOST_COPIES} files")
                shutil.copytree(source, self._tree / place)
        lost |= {place: f"{place} links to {self._links[place]!r}, which holds it" for place in folders}
        self._links.clear()
        return [text for _, text in sorted(lost.items())]

    def _apply(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        path = _path(entry.name)
        if path.name.startswith(WHITEOUT):
            self._hide(path)
            return
        inside = self._below(path)
        if inside is None:
            self._apply_above(path, entry)
            return
        if entry.isdir():
            if inside in self._links or not (self._tree / inside).is_dir():
                self._make_room(inside)
                (self._tree / inside).mkdir()
            self._refused.pop(inside, None)
        elif entry.isreg():
            self._make_room(inside)
            content = archive.extractfile(entry)
            if content is not None:
                with content, (self._tree / inside).open("wb") as file:
                    shutil.copyfileobj(content, file)
        elif entry.issym():
            self._make_room(inside)
            self._links[inside] = entry.linkname
        elif entry.islnk():
            self._link(inside, entry.linkname)
        else:
            self._make_room(inside)
            self._refused[inside] = f"{inside} is neither a file, a directory nor a link"
        self._added.add(inside)

    def _apply_above(self, path: PurePosixPath, entry: tarfile.TarInfo) -> None:
        """An entry that is not below the folder: of interest only if it is the folder, or one above it."""
        if path != self._prefix and path not in self._prefix.parents:
            return
        here = PurePosixPath()
        if entry.isdir():
            self._refused.pop(here, None)
        else:
            kind = f"is a link to {entry.linkname!r}" if entry.issym() else "is not a directory"
            self._refused[here] = f"/{path} {kind}"

    def _link(self, place: PurePosixPath, target: str) -> None:
        """A hard link: another name of an entry that was unpacked before."""
        source = self._below(_path(target))
        if source == place:
            return
        self._make_room(place)
        if source is not None and source in self._links:
            self._links[place] = str(PurePosixPath("/", self._prefix, source.parent, self._links[source]))
        elif source is not None and (self._tree / source).is_file():
            _same_file(self._tree / source, self._tree / place)
        else:
            self._refused[place] = f"{place} is a hard link to {target!r}, which is not in the folder"

    def _hide(self, path: PurePosixPath) -> None:
        """A whiteout: removes what lower layers have put there."""
        if path.name == OPAQUE:
            hidden = path.parent
        else:
            name = path.name.removeprefix(WHITEOUT)
            if name in ("", ".", ".."):
                raise RegistryError(f"a layer holds the whiteout {str(path)!r}, which leads outside")
            hidden = path.parent / name
        if hidden == self._prefix or hidden in self._prefix.parents:
            self._remove(PurePosixPath())
        elif (inside := self._below(hidden)) is not None:
            self._remove(inside, itself=path.name != OPAQUE)

    def _remove(self, place: PurePosixPath, *, itself: bool = False) -> None:
        """Remove what lies below `place`, and `place` with `itself`, but for what the current layer has added."""
        for known in (self._links, self._refused):
            for name in [name for name in known if (place in name.parents or (itself and name == place))]:
                if name not in self._added:
                    del known[name]
        root = self._tree / place
        if root.is_file():
            if itself and place not in self._added:
                root.unlink()
            return
        for folder, folders, files in os.walk(root, topdown=False):
            for file in (Path(folder, entry) for entry in files):
                if PurePosixPath(file.relative_to(self._tree)) not in self._added:
                    file.unlink()
            for inner in folders:
                self._remove_if_empty(Path(folder, inner))
        if itself and root.is_dir():
            self._remove_if_empty(root)

    def _remove_if_empty(self, folder: Path) -> None:
        if PurePosixPath(folder.relative_to(self._tree)) not in self._added and not any(folder.iterdir()):
            folder.rmdir()

    def _make_room(self, place: PurePosixPath) -> None:
        """Make the parents of `place` directories and remove what is there: the later entry of a name wins."""
        for parent in reversed(place.parents[:-1]):
            if parent in self._links:
                raise RegistryError(f"a layer holds {str(place)!r}, below the link {str(parent)!r}")
            folder = self._tree / parent
            if folder.is_file():
                folder.unlink()
            folder.mkdir(exist_ok=True)
        self._links.pop(place, None)
        self._refused.pop(place, None)
        target = self._tree / place
        if target.is_dir():
            shutil.rmtree(target)
            for known in (self._links, self._refused):
                for name in [name for name in known if place in name.parents]:
                    del known[name]
        else:
            target.unlink(missing_ok=True)

    def _resolve(self, place: PurePosixPath) -> PurePosixPath | None:
        """The file or directory of the folder that a name leads to, None if there is none.

        Follows links part by part with the image as root, as the kernel does after chroot.
        """
        left = [*reversed(PurePosixPath(self._prefix, place).parts)]
        done: list[str] = []
        followed = 0
        while left:
            part = left.pop()
            if part == "..":
                del done[-1:]
                continue
            done.append(part)
            link = self._links.get(self._below(PurePosixPath(*done)) or PurePosixPath())
            if link is None:
                continue
            followed += 1
            if followed > MOST_LINKS:
                return None
            if link.startswith("/"):
                done.clear()
            else:
                done.pop()
            left += reversed([part for part in PurePosixPath(link).parts if part not in ("/", ".")])
        found = self._below(PurePosixPath(*done))
        try:
            return found if found is not None and (self._tree / found).exists() else None
        except OSError:  # a name that no file system has (longer than NAME_MAX)
            return None

    def _below(self, path: PurePosixPath) -> PurePosixPath | None:
        """A path of the image relative to the folder, None if it is elsewhere."""
        return path.relative_to(self._prefix) if self._prefix in path.parents else None


def _same_file(source: Path, copy: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)


def _path(name: str) -> PurePosixPath:
    """The path of an entry from the root of the image.

    Raises:
        RegistryError: it leads outside, or it is deeper than any real one.
    """
    parts = [part for part in PurePosixPath(name.lstrip("/")).parts if part != "."]
    if ".." in parts:
        raise RegistryError(f"a layer holds the path {name!r}, which leads outside")
    if len(parts) > MOST_PARTS:
        raise RegistryError(f"a layer holds a path of {len(parts)} folders, more than {MOST_PARTS}: {name[:80]!r}")
    return PurePosixPath(*parts)
