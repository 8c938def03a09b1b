"""Unpacks one directory of an image by applying its layers in order (OCI image specification, "Applying changesets").

Used by `adapter_image`. Layers are untrusted input. Guarantees:

* Nothing is written or removed outside the target directory.
* Only regular files and directories are written. Links are resolved inside the image; an entry that cannot be written
  (a link out of the directory, a device) is reported, not skipped.
* A malformed layer is a RegistryError.
"""

import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final, final

from kaito_oci.errors import RegistryError

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
MAX_LINKS: Final = 40
"""Links that one name may follow before they count as a cycle (Linux: MAXSYMLINKS)."""
MAX_PATH_PARTS: Final = 100
"""Parts of one path. Python's recursive functions fail for much deeper trees."""
MAX_COPIED_FILES: Final = 10_000
"""Files that are copied for links to directories. A chain of n directories with two links each to the previous one
expands to 2^n copies."""


def apply_layer(stream: IO[bytes], tree: Path, path: str) -> list[str]:
    """Applies one layer to `tree`; returns a message for each entry below `path` that could not be written.

    Raises:
        RegistryError: the layer is not an archive, or contains a path outside the image.
    """
    content = ImageTree(tree, path)
    content.apply(stream)
    return content.resolve_links()


@final
class ImageTree:
    """The content of the directory `path` of an image, built layer by layer in the local directory `tree`."""

    def __init__(self, tree: Path, path: str) -> None:
        self._tree = tree
        self._prefix = PurePosixPath(*PurePosixPath(path.strip("/")).parts)
        self._links: dict[PurePosixPath, str] = {}
        """Symbolic links by their path below the directory. Their targets are known only after the last layer."""
        self._unwritable: dict[PurePosixPath, str] = {}
        """Entries that cannot be written, with their messages."""
        self._added: set[PurePosixPath] = set()
        """Entries of the current layer. Its whiteouts remove entries of lower layers only."""

    def apply(self, stream: IO[bytes]) -> None:
        """Applies a layer.

        Raises:
            RegistryError: the layer is not an archive, or contains a path outside the image.
        """
        self._added = set()
        name = ""
        try:
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for entry in archive:
                    name = entry.name
                    self._apply(archive, entry)
        except (tarfile.TarError, EOFError, zlib.error, RecursionError) as error:
            # RecursionError: tarfile reads a chain of extended headers recursively.
            raise RegistryError(f"a layer is not a tar archive: {error}") from error
        except (OSError, ValueError) as error:
            raise RegistryError(f"a layer cannot be unpacked at {name!r}: {error}") from error

    def resolve_links(self) -> list[str]:
        """Replaces links by copies of their targets; returns a message for each entry that could not be written.

        Raises:
            RegistryError: the links expand to too many files, or the copies cannot be written.
        """
        try:
            return self._write_links()
        except OSError as error:
            raise RegistryError(f"the links of an image cannot be written: {error}") from error

    def _write_links(self) -> list[str]:
        targets = {place: self._resolve(place) for place in sorted(self._links)}
        problems = dict(self._unwritable)
        folders: dict[PurePosixPath, PurePosixPath] = {}
        for place, target in targets.items():
            if target is None:
                problems[place] = f"{place} links to {self._links[place]!r}, which is not in the directory"
            elif (self._tree / target).is_dir():
                folders[place] = target
            else:
                _link_or_copy(self._tree / target, self._tree / place)
        copies = 0
        # A directory is copied after the links inside it have been resolved. Links that remain contain themselves.
        while ready := [
            place for place, target in folders.items() if not any(target == p or target in p.parents for p in folders)
        ]:
            for place in ready:
                source = self._tree / folders.pop(place)
                copies += sum(1 for _ in source.rglob("*"))
                if copies > MAX_COPIED_FILES:
                    raise RegistryError(f"the links of an image expand to more than {MAX_COPIED_FILES} files")
                shutil.copytree(source, self._tree / place)
        problems |= {place: f"{place} links to {self._links[place]!r}, which contains the link" for place in folders}
        self._links.clear()
        return [text for _, text in sorted(problems.items())]

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
                self._prepare_place(inside)
                (self._tree / inside).mkdir()
            self._unwritable.pop(inside, None)
        elif entry.isreg():
            self._prepare_place(inside)
            content = archive.extractfile(entry)
            if content is not None:
                with content, (self._tree / inside).open("wb") as file:
                    shutil.copyfileobj(content, file)
        elif entry.issym():
            self._prepare_place(inside)
            self._links[inside] = entry.linkname
        elif entry.islnk():
            self._link(inside, entry.linkname)
        else:
            self._prepare_place(inside)
            self._unwritable[inside] = f"{inside} is neither a file, a directory nor a link"
        self._added.add(inside)

    def _apply_above(self, path: PurePosixPath, entry: tarfile.TarInfo) -> None:
        """Checks an entry that is the directory or one of its parents, which must be directories."""
        if path != self._prefix and path not in self._prefix.parents:
            return
        here = PurePosixPath()
        if entry.isdir():
            self._unwritable.pop(here, None)
        else:
            kind = f"is a link to {entry.linkname!r}" if entry.issym() else "is not a directory"
            self._unwritable[here] = f"/{path} {kind}"

    def _link(self, place: PurePosixPath, target: str) -> None:
        """Applies a hard link to an entry that was unpacked before."""
        source = self._below(_path(target))
        if source == place:
            return
        self._prepare_place(place)
        if source is not None and source in self._links:
            self._links[place] = str(PurePosixPath("/", self._prefix, source.parent, self._links[source]))
        elif source is not None and (self._tree / source).is_file():
            _link_or_copy(self._tree / source, self._tree / place)
        else:
            self._unwritable[place] = f"{place} is a hard link to {target!r}, which is not in the directory"

    def _hide(self, path: PurePosixPath) -> None:
        """Applies a whiteout, which removes entries of lower layers."""
        if path.name == OPAQUE:
            hidden = path.parent
        else:
            name = path.name.removeprefix(WHITEOUT)
            if name in ("", ".", ".."):
                raise RegistryError(f"a layer contains the whiteout {str(path)!r}, which is outside the image")
            hidden = path.parent / name
        if hidden == self._prefix or hidden in self._prefix.parents:
            self._remove(PurePosixPath())
        elif (inside := self._below(hidden)) is not None:
            self._remove(inside, itself=path.name != OPAQUE)

    def _remove(self, place: PurePosixPath, *, itself: bool = False) -> None:
        """Removes the entries below `place`, and `place` if `itself` is set, except entries of the current layer."""
        for known in (self._links, self._unwritable):
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

    def _prepare_place(self, place: PurePosixPath) -> None:
        """Creates the parent directories of `place` and removes an earlier entry of that name."""
        for parent in reversed(place.parents[:-1]):
            if parent in self._links:
                raise RegistryError(f"a layer contains {str(place)!r}, below the link {str(parent)!r}")
            folder = self._tree / parent
            if folder.is_file():
                folder.unlink()
            folder.mkdir(exist_ok=True)
        self._links.pop(place, None)
        self._unwritable.pop(place, None)
        target = self._tree / place
        if target.is_dir():
            shutil.rmtree(target)
            for known in (self._links, self._unwritable):
                for name in [name for name in known if place in name.parents]:
                    del known[name]
        else:
            target.unlink(missing_ok=True)

    def _resolve(self, place: PurePosixPath) -> PurePosixPath | None:
        """Resolves a path to a file or directory inside the directory; None if it does not exist there.

        Links are followed part by part with the image as root, as the kernel does after chroot.
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
            if len(done) > MAX_PATH_PARTS:
                return None  # `_path` has rejected entries that are this deep
            link = self._links.get(self._below(PurePosixPath(*done)) or PurePosixPath())
            if link is None:
                continue
            followed += 1
            if followed > MAX_LINKS:
                return None
            if link.startswith("/"):
                done.clear()
            else:
                done.pop()
            left += reversed([part for part in PurePosixPath(link).parts if part not in ("/", ".")])
        found = self._below(PurePosixPath(*done))
        try:
            return found if found is not None and (self._tree / found).exists() else None
        except OSError:  # a name longer than NAME_MAX
            return None

    def _below(self, path: PurePosixPath) -> PurePosixPath | None:
        """Returns a path of the image relative to the directory, or None if it is outside."""
        return path.relative_to(self._prefix) if self._prefix in path.parents else None


def _link_or_copy(source: Path, copy: Path) -> None:
    """Creates a hard link, or a copy if the file system does not support hard links."""
    try:
        os.link(source, copy)
    except OSError:
        shutil.copyfile(source, copy)


def _path(name: str) -> PurePosixPath:
    """Returns the path of an entry relative to the root of the image.

    Raises:
        RegistryError: the path is outside the image, or has more than `MAX_PATH_PARTS` parts.
    """
    parts = [part for part in PurePosixPath(name.lstrip("/")).parts if part != "."]
    if ".." in parts:
        raise RegistryError(f"a layer contains the path {name!r}, which is outside the image")
    if len(parts) > MAX_PATH_PARTS:
        raise RegistryError(
            f"a layer contains a path with {len(parts)} parts, more than {MAX_PATH_PARTS}: {name[:80]!r}"
        )
    return PurePosixPath(*parts)
