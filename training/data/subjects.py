"""Title, contents, license and class names of the known data sets, as cards and messages name them."""

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Subject:
    """A data set, as cards describe it."""

    title: str
    one: str
    """Noun for one of its images: `digit`."""
    many: str
    contents: str
    """Completes a sentence after `pictures`."""
    licence: str
    misuse: str
    """Completes a sentence after `Not for`: a use that models of this data set are not made for."""
    classes: tuple[str, ...] = ()
    """Names of the labels 0, 1, ...; if empty, the labels are shown as numbers."""


SUBJECTS = {
    "mnist": Subject(
        title="MNIST",
        one="digit",
        many="digits",
        contents="of single handwritten digits, white on black, centred and scaled as MNIST's are",
        licence="""\
MNIST is the work of Yann LeCun, Corinna Cortes and Christopher J. C. Burges, derived from NIST's Special Databases 1
and 3, and is available under CC BY-SA 3.0. The pictures on this page that show its digits are under that licence.""",
        misuse="reading digits",
    ),
    "fashion-mnist": Subject(
        title="Fashion-MNIST",
        one="article",
        many="articles",
        contents="of single articles of clothing, light on black, centred and scaled as Fashion-MNIST's are",
        licence="""\
Fashion-MNIST is the work of Han Xiao, Kashif Rasul and Roland Vollgraf. It is copyright 2017 Zalando SE and available
under the MIT licence. The pictures on this page that show its articles are under that licence.""",
        misuse="sorting clothes",
        classes=(
            *("T-shirt", "trousers", "pullover", "dress", "coat"),
            *("sandal", "shirt", "sneaker", "bag", "boot"),
        ),
    ),
    "kmnist": Subject(
        title="KMNIST",
        one="character",
        many="characters",
        contents="of single handwritten kuzushiji characters, white on black, centred and scaled as KMNIST's are",
        licence="""\
The KMNIST dataset was created by the ROIS-DS Center for Open Data in the Humanities (CODH), adapted from the Kuzushiji
dataset of the National Institute of Japanese Literature and others, doi:10.20676/00000341. It is available under
CC BY-SA 4.0. The pictures on this page that show its characters are under that licence.""",
        misuse="reading manuscripts",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    "emoji": Subject(
        title="Emoji",
        one="emoji",
        many="emoji",
        contents="of single emoji on white, as Noto Emoji and Twemoji draw them",
        licence="""\
The emoji are those of Noto Emoji, which is copyright Google LLC and available under Apache-2.0, and of Twemoji, which
is copyright Twitter, Inc. and other contributors and available under CC BY 4.0. The pictures on this page that show
their emoji are under these licences.""",
        misuse="telling what somebody means",
        classes=(
            *("smileys", "people", "animals", "food", "travel"),
            *("activities", "objects", "symbols", "flags"),
        ),
    ),
    "faces": Subject(
        title="Faces",
        one="face",
        many="faces",
        contents="of single cartoon faces on white, in the style toon-head",
        licence="""\
The faces are drawn by DiceBear in the style ToonHead by Johan Melin (https://www.johanmelin.com), which is available
under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Colors are chosen and shapes are combined at random. The
pictures on this page that show its faces are under that licence.""",
        misuse="telling anything about people",
    ),
}


def subject_of(dataset: str) -> Subject:
    """The subject of a data set by its key in the manifest; a generic one if the data set is unknown."""
    return SUBJECTS.get(dataset) or _unknown(dataset)


def _unknown(dataset: str) -> Subject:
    title = PurePosixPath(dataset.partition(":")[2] or dataset).name.removesuffix(".npz")
    return Subject(
        title=title,
        one="image",
        many="images",
        contents=f"like those of `{dataset}`, which it was trained on",
        licence=f"""\
The licence of the data set `{dataset}` is its owner's to say. The pictures on this page that show its images are under
that licence.""",
        misuse="what its data may not be used for",
    )
