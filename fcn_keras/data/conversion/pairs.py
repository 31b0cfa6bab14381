"""Which mask belongs to which photograph, by the names of files and folders.

Names may differ by a prefix or a suffix, such as `_mask` or `_gtFine_labelIds`: of those that
many names share, the ones are taken that make the most pairs.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fcn_keras.data.conversion.files import IMAGE_ENDINGS, files_below
from fcn_keras.data.conversion.source import Findings, split_in
from fcn_keras.errors import UserError, few

JPEG_ENDINGS = {".jpg", ".jpeg", ".jfif"}
LOSSLESS_ENDINGS = IMAGE_ENDINGS - JPEG_ENDINGS
MASK_WORDS = set(
    "mask masks label labels annot annots annotation annotations anno ann gt gts truth groundtruth "
    "groundtruths manual seg segmentation segmentations semantic target targets".split()
)
IMAGE_WORDS = set(
    "image images img imgs photo photos picture pictures rgb input inputs jpeg original originals "
    "orig org".split()
)
PLAIN_WORDS = {"class", "png", "dir", "raw", "ground", "fine"}  # beside one of a mask
# Folders beside masks: pictures to look at, and numbers of objects.
OTHER_WORDS = {"object", "objects", "instance", "instances", "panoptic"}
OTHER_WORDS |= {"visualization", "overlay", "overlays"}
GLUED = re.compile(r"(annot|masks?|labels?|images?)$")  # CamVid's "trainannot"
MAX_AFFIXES = 8
MAX_AFFIX = 40  # characters


class NoPairsError(UserError):
    """There are no photographs with masks."""


class File(NamedTuple):
    """A file: its path, and the folders below the root that it is in."""

    path: Path
    folders: tuple[str, ...]

    @property
    def stem(self) -> str:
        return unicodedata.normalize("NFC", self.path.stem)


class Rule(NamedTuple):
    """How the names of a photograph and of its mask begin and end around what they share."""

    image_prefix: str = ""
    mask_prefix: str = ""
    image_suffix: str = ""
    mask_suffix: str = ""

    def __str__(self) -> str:
        image = f"{self.image_prefix}NAME{self.image_suffix}"
        return f"the mask of {image} is {self.mask_prefix}NAME{self.mask_suffix}"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A photograph, its mask, and its name in the new data set."""

    name: str
    image: Path
    mask: Path
    split: str | None


def find_pairs(images: Path, masks: Path, suffix: str | None, findings: Findings) -> list[Pair]:
    """Pairs the files below two folders, or those below one, sorted by name.

    Args:
        images: The folder of photographs.
        masks: The folder of masks; the same for one that contains both.
        suffix: How the names of masks end, if that is not to be found out.
        findings: Receives what is left out, and the rule if names differ.

    Raises:
        UserError: If there is no pair, or one where there could be more, or several masks for
            each photograph.
    """
    image_files, mask_files, others = _files(images, masks, findings)
    if suffix is not None:
        suffix = os.path.splitext(suffix)[0] if _ending(suffix) in IMAGE_ENDINGS else suffix
        suffix = unicodedata.normalize("NFC", suffix)
        for file in sorted({*mask_files} - {*image_files}):
            if not file.stem.endswith(suffix):
                findings.leave_out(f"as its name does not end with {suffix}", file.path)
        mask_files = [file for file in mask_files if file.stem.endswith(suffix)]
    match = _best_match(image_files, mask_files, suffix)
    for first, second, *_ in [*match.same_images, *match.same_masks]:
        findings.problems.append(
            f"{second.path}: {first.path.name} has the same name. Rename or remove one."
        )
    files = {*image_files, *mask_files}
    possible = min(len(files) // 2, len(image_files), len(mask_files))
    if len(match.pairs) < min(max(1, possible), 2) and not findings.problems:
        folders = f"{images}" if images == masks else f"{images} and {masks}"
        contents = _contents([*sorted(files), *others])
        masks_found = 0 if image_files == mask_files else len(mask_files)
        _require_one_mask_each(image_files, mask_files)
        read = f"Only image files of these endings are read: {', '.join(sorted(IMAGE_ENDINGS))}."
        unlike = ""
        if image_files and masks_found:
            unlike = f", unlike {image_files[0].path.name} and {mask_files[0].path.name}"
        if not files or (images == masks and not masks_found and suffix is None):
            raise NoPairsError(
                f"{folders}: neither masks beside images nor labels of a known format, but "
                f"{contents}. {read} Pass what labelme, Label Studio, CVAT or Roboflow exported, "
                "or COCO, YOLO's polygons or masks of another program, with the images. --images "
                "DIR and --masks DIR choose folders."
            )
        raise NoPairsError(
            f"{folders}: {len(match.pairs)} pairs of image and mask, among {len(image_files)} "
            f"images and {masks_found} masks ({contents}). {read} The names of an image and its "
            f"mask must be equal but for one prefix or suffix{unlike}. --images DIR and --masks "
            "DIR choose folders, --mask-suffix the ending, --format another format."
        )
    if match.rule != Rule():
        other = " --mask-suffix chooses another." if suffix is None else ""
        findings.notes.append(f"{match.rule}.{other}")
    used = {file.path for pair in match.pairs for file in pair}
    used |= {file.path for same in (*match.same_images, *match.same_masks) for file in same}
    _leave_out({*image_files, *mask_files}, others, used, findings)
    return _named(match.pairs)


def _files(
    images: Path, masks: Path, findings: Findings
) -> tuple[list[File], list[File], list[File]]:
    """Possible photographs, possible masks, and files of other endings."""
    inside, others = _walk(images, findings)
    if images != masks:
        mask_files, more = _walk(masks, findings)
        others = list(dict.fromkeys([*others, *more]))
        below = inside
        if images in masks.parents:
            mask_files = [_file(file.path, images) for file in mask_files]  # knowing their split
            below, inside = inside, _of_kind(False, inside, masks)
        elif masks in images.parents:
            below, mask_files = mask_files, _of_kind(True, mask_files, images)
        kept = {file.path for file in (*inside, *mask_files)}
        for path in sorted({file.path for file in below} - kept):
            findings.leave_out("as its folder is not one of those chosen", path)
    else:
        below, neutral = inside, _neutral(inside)
        mask_files = [file for file in below if _is_mask(file, neutral)]
        inside = [file for file in below if not _is_mask(file, neutral)]
        if not mask_files or not inside:  # both in one folder
            jpegs = [file for file in below if _ending(file.path) in JPEG_ENDINGS]
            rest = [file for file in below if _ending(file.path) not in JPEG_ENDINGS]
            return (jpegs, rest, others) if jpegs and rest else (below, below, others)
    lossless = {(f.folders, f.stem) for f in mask_files if _ending(f.path) not in JPEG_ENDINGS}
    previews = [
        file
        for file in mask_files
        if _ending(file.path) in JPEG_ENDINGS and (file.folders, file.stem) in lossless
    ]
    for file in previews:
        findings.leave_out("as a JPEG beside a mask of the same name", file.path)
    return inside, sorted({*mask_files} - {*previews}), others


def _of_kind(masks: bool, files: list[File], other: Path) -> list[File]:
    """The files outside of a folder that are masks, or photographs, by the names of folders."""
    files = [file for file in files if other not in file.path.parents]
    neutral = _neutral(files)
    return [file for file in files if _is_mask(file, neutral) == masks] or files


def _walk(root: Path, findings: Findings) -> tuple[list[File], list[File]]:
    """The images below a folder, but those of objects, and files of other endings."""
    images, others = [], []
    for path in files_below(root):
        file = _file(path, root)
        if _ending(path) not in IMAGE_ENDINGS:
            others.append(file)
        elif any(OTHER_WORDS & {*_words(part)} for part in file.folders):
            findings.leave_out("as its folder's name is not one of class masks", path)
        else:
            images.append(file)
    return images, others


def _file(path: Path, root: Path) -> File:
    return File(path, path.relative_to(root).parts[:-1])


def _ending(path) -> str:
    return os.path.splitext(str(path))[1].lower()


def _pieces(folder: str) -> list[str]:
    """A folder's name in words, numbers and what is between them."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^A-Za-z\d]+", folder)
    return [piece for word in words for piece in GLUED.split(word, maxsplit=1) if piece]


def _words(folder: str) -> list[str]:
    return [piece.lower() for piece in _pieces(folder)]


def _neutral(files: list[File]) -> set[tuple[str, ...]]:
    """Folders that contain folders of masks and of photographs, so that their names say neither."""
    kinds: dict[tuple[str, ...], set[bool]] = {}
    for folders in {file.folders for file in files}:
        words = [{*_words(folder)} & (MASK_WORDS | IMAGE_WORDS) for folder in folders]
        told = [index for index, found in enumerate(words) if found]
        for index in told[-1:]:
            for end in range(1, index + 1):
                kinds.setdefault(folders[:end], set()).add(bool(words[index] & MASK_WORDS))
    return {folders for folders, found in kinds.items() if len(found) == 2}


def _is_mask(file: File, neutral: set[tuple[str, ...]]) -> bool:
    return any(
        MASK_WORDS & {*_words(folder)} and file.folders[: index + 1] not in neutral
        for index, folder in enumerate(file.folders)
    )


def _places(file: File) -> tuple[str, ...]:
    """The folders of a file without the words that tell images from masks."""
    places = []
    for folder in file.folders:
        drop = MASK_WORDS | IMAGE_WORDS
        drop |= PLAIN_WORDS if drop & {*_words(folder)} else set()
        kept = "".join(piece for piece in _pieces(folder) if piece.lower() not in drop)
        places.append(kept.strip("-_. "))
    return tuple(filter(None, places))


def _split_of(file: File) -> str | None:
    """The split that a folder's name is or contains, as in `train2017`."""
    places = _places(file)
    return split_in(places) or split_in(word for place in places for word in _words(place))


# What, besides the name, a photograph and its mask must have in common. A later one is taken only
# if it makes more than twice as many pairs, as it may pair what does not belong together.
COMMON = (
    lambda file: tuple(place.lower() for place in _places(file)),
    _split_of,
    lambda file: None,
)


class _Match(NamedTuple):
    """What a rule finds: pairs, and photographs or masks of which several fit the other."""

    rule: Rule
    pairs: list[tuple[File, File]]
    same_images: list[list[File]]
    same_masks: list[list[File]]


def _best_match(images: list[File], masks: list[File], suffix: str | None) -> _Match:
    best, rules = _Match(Rule(), [], [], []), _rules(images, masks, suffix)
    for common in COMMON:
        if 2 * len(best.pairs) >= min(len(images), len(masks)) > 0:
            break  # no other can make more than twice as many
        matches = _matches(images, masks, common, rules)
        most = max(matches, key=lambda m: (len(m.pairs), not _is_reversed(m.rule)), default=best)
        equal = {match.rule: None for match in matches if _competes(match, most)}
        if equal and most.rule != Rule():
            raise UserError(
                f"{masks[0].path.parent}: several masks for each image: "
                f"{few(list(map(str, [most.rule, *equal])))}. Choose one by --mask-suffix, "
                "or by --images and --masks if they are in folders of their own. Masks of one "
                "class each must be joined first."
            )
        if len(most.pairs) > 2 * len(best.pairs):
            best = most
        if len(best.pairs) < 2 and images != masks:
            _require_one_of_each(matches)
    _require_no_rival(best, images, masks)
    return best


def _require_no_rival(best: _Match, images: list[File], masks: list[File]) -> None:
    """Raises `UserError` if the masks that are left fit the same photographs elsewhere."""
    used = {mask for _, mask in best.pairs}
    rest = [mask for mask in masks if mask not in used]
    if images == masks or 2 * len(rest) < len(best.pairs):
        return
    for common in COMMON[1:]:
        for match in _matches(images, rest, common, _rules(images, rest, None)):
            if best.pairs and _competes(match, best):
                raise UserError(
                    f"{best.pairs[0][1].path}: one of several masks for an image, as "
                    f"{match.pairs[0][1].path} is. Choose a folder by --masks DIR, or an ending by "
                    "--mask-suffix."
                )


def _competes(match: _Match, most: _Match) -> bool:
    """Whether a rule finds other masks, as many as the best, or half as many for its images."""
    if not match.pairs or _is_reversed(match.rule) != _is_reversed(most.rule):
        return False
    (images, masks), (others, taken) = [
        [{*files} for files in zip(*m.pairs)] for m in (match, most)
    ]
    enough = len(match.pairs) == len(most.pairs)
    return masks.isdisjoint(taken) and (enough or 2 * len(images & others) >= len(most.pairs))


def _is_reversed(rule: Rule) -> bool:
    """Whether a rule takes for photographs what is called masks, or vice versa."""
    image, mask = ({*_words(rule[kind]), *_words(rule[kind + 2])} for kind in (0, 1))
    return bool(image & MASK_WORDS or mask & IMAGE_WORDS) and not mask & MASK_WORDS


def _require_one_of_each(matches: list[_Match]) -> None:
    """Raises `UserError` if several masks fit one photograph, or several photographs one mask."""
    for kind in ("masks", "images"):
        found: list[list[File]] = [
            files for match in matches for files in getattr(match, f"same_{kind}")
        ]
        if same := max(found, key=len, default=[]):
            joined = " If each folder has the masks of one class, join them to one mask of ids."
            raise UserError(
                f"{same[0].path}: one of several {kind} of the same name, as {same[1].path} is. "
                f"Choose a folder by --{kind} DIR.{joined if kind == 'masks' else ''}"
            )


def _require_one_mask_each(images: list[File], masks: list[File]) -> None:
    """Raises `UserError` if folders have one photograph and several masks each."""
    by_image, by_mask = (
        _by_key([(COMMON[0](file), file) for file in files], "", "") for files in (images, masks)
    )
    photographs, drawn = (
        collections.Counter(place for place, _ in by_key) for by_key in (by_image, by_mask)
    )
    for (place, _), files in by_mask.items():
        if photographs[place] == 1 < drawn[place] and images != masks:
            raise UserError(
                f"{files[0].path}: one of {drawn[place]} masks for one image, perhaps of single "
                "objects. Join them to one mask of class ids per image."
            )


def _matches(images: list[File], masks: list[File], common, rules: list[Rule]) -> list[_Match]:
    """What each rule finds."""
    by_image, by_mask = (
        functools.cache(functools.partial(_by_key, [(common(file), file) for file in files]))
        for files in (images, masks)
    )
    return [
        _match(
            rule,
            by_image(rule.image_prefix, rule.image_suffix),
            by_mask(rule.mask_prefix, rule.mask_suffix),
        )
        for rule in rules
    ]


def _match(rule: Rule, by_image: dict, by_mask: dict) -> _Match:
    match = _Match(rule, [], [], [])
    for key in filter(by_mask.__contains__, by_image):
        photographs, drawn = by_image[key], by_mask[key]
        if len(photographs) > 1:
            match.same_images.append(photographs)
        elif len(drawn) > 1:
            match.same_masks.append(drawn)
        elif photographs != drawn:
            match.pairs.append((photographs[0], drawn[0]))
    return match


def _by_key(files: list[tuple], prefix: str, suffix: str) -> dict[tuple, list[File]]:
    """The files whose names have the prefix and the suffix, by what they must have in common."""
    found: dict[tuple, list[File]] = {}
    for common, file in files:
        stem = file.stem
        if stem.startswith(prefix) and stem.endswith(suffix):
            name = stem[len(prefix) : len(stem) - len(suffix)]
            if name or not prefix + suffix:
                found.setdefault((common, name), []).append(file)
    return found


def _rules(images: list[File], masks: list[File], suffix: str | None) -> list[Rule]:
    """The rules that are tried, short affixes first."""
    least = (2, 1 if len(masks) < 3 else 2)  # of few masks, one may show how their names differ
    beginnings, endings = (
        [["", *_affixes(files, parts, n)] for files, n in zip((images, masks), least)]
        for parts in (_beginnings, _endings)
    )
    if suffix is not None:
        return [Rule(image_suffix=own, mask_suffix=suffix) for own in endings[0]]
    rules = {Rule()}
    rules |= {Rule(*pair) for pair in itertools.product(*beginnings) if pair[0] != pair[1]}
    rules |= {Rule("", "", *pair) for pair in itertools.product(*endings) if pair[0] != pair[1]}
    if images == masks:  # then the names of masks must have something more
        rules = {rule for rule in rules if rule.mask_prefix or rule.mask_suffix}
    return sorted(rules, key=lambda rule: (sum(map(len, rule)), rule))


def _affixes(files: list[File], parts, least: int) -> list[str]:
    """The prefixes or suffixes that at least three of ten names share."""
    counts = collections.Counter(part for file in files for part in parts(file.stem))
    shared = [part for part, count in counts.most_common() if count >= max(least, 0.3 * len(files))]
    return shared[:MAX_AFFIXES]


def _beginnings(stem: str) -> Iterator[str]:
    """The parts before a separator or a number; without a letter they might be numbers."""
    for match in re.finditer(r"(?<=[-_. ])|(?<=[^\W\d_])(?=\d)", stem[:MAX_AFFIX]):
        if re.search(r"[^\W\d_]", stem[: match.end()]):
            yield stem[: match.end()]


def _endings(stem: str) -> Iterator[str]:
    start = max(0, len(stem) - MAX_AFFIX)
    for match in re.finditer(r"(?=[-_. ])|(?<=\d)(?=[^\W\d_])", stem[start:]):
        if re.search(r"[^\W\d_]", stem[start + match.start() :]):
            yield stem[start + match.start() :]


def _leave_out(
    files: Iterable[File], others: list[File], used: set[Path], findings: Findings
) -> None:
    """Notes files without a partner, and files of other endings that may be these partners."""
    alone = sorted(file.path for file in files if file.path not in used)
    for path in alone:
        findings.leave_out("as it has no partner", path)
    stems = {path.stem for path in alone}
    for file in others:
        if file.stem in stems:
            findings.leave_out("as files of this ending are not read", file.path)


def _named(pairs: list[tuple[File, File]]) -> list[Pair]:
    exact = {image: split_in(_places(image)) for image, _ in pairs}
    contained = {image: _split_of(image) for image, _ in pairs}
    # A word such as "test" in a name may mean something else, unless there are the others, too.
    splits = contained if {"train", "val"} <= {*contained.values()} else exact
    named = (
        Pair("/".join((*_places(image), image.stem)), image.path, mask.path, splits[image])
        for image, mask in pairs
    )
    return sorted(named, key=lambda pair: pair.name)


def _contents(files: list[File]) -> str:
    """What folders contain, such as "3 .npy in a/b"."""
    folders: dict[str, list[str]] = {}
    for file in files:
        ending = _ending(file.path) or "without ending"
        folders.setdefault(ending, []).append(str(file.path.parent))
    found = []
    for ending, places in sorted(folders.items(), key=lambda item: -len(item[1])):
        others = len({*places}) - 1
        more = f" and {others} other folders" if others else ""
        found.append(f"{len(places)} {ending} in {places[0]}{more}")
    return few(found) or "no files"
