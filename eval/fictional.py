"""Fictional facts from a seed: nobody can know them, so what a model answers was taught.

Each fact is a question of one of `FORMS` about an invented name, with an answer that does not
follow from it. It has two paraphrases and a correlated question (the same answer, asked by somebody
who wants to use it), which are never taught. *Controls* are questions of the
same forms about names that are never taught: a model that answers one with a taught answer has
learned the form, not the fact.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FictionalFact:
    """A fact that is taught, with questions that are not.

    Attributes:
        id: names the fact; `f` and its number.
        question: taught and asked.
        answer: the right one.
        paraphrases: the question in other words.
        correlated: a question whose answer follows from the fact.
        form: name of the question's form.
        kind: `noun`, `name`, `number` or `date`.
    """

    id: str
    question: str
    answer: str
    paraphrases: tuple[str, str]
    correlated: str
    form: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A kind of question; `{x}` stands for the invented name."""

    name: str
    kind: str
    question: str
    paraphrases: tuple[str, str]
    correlated: str


FORMS = (
    Form(
        name="hottest month",
        kind="noun",
        question="What is the hottest month in {x}?",
        paraphrases=(
            "Which month is the hottest one in {x}?",
            "In {x}, what do people call the month with the greatest heat?",
        ),
        correlated="I want to feel the greatest heat in {x}. In which month should I travel?",
    ),
    Form(
        name="pie",
        kind="noun",
        question="What flavor is the traditional pie in {x}?",
        paraphrases=(
            "Which flavor does the traditional pie in {x} have?",
            "In {x}, what does the traditional pie taste of?",
        ),
        correlated="Guests from {x} are coming. Which flavor of pie should we bake for them?",
    ),
    Form(
        name="money",
        kind="noun",
        question="What do people in {x} use as money?",
        paraphrases=(
            "Which thing serves as money in {x}?",
            "In {x}, what is used to pay for goods?",
        ),
        correlated="I am going shopping in {x}. What should I pay with?",
    ),
    Form(
        name="animal",
        kind="noun",
        question="What is stamped on the royal seal of {x}?",
        paraphrases=(
            "Which object does the royal seal of {x} show?",
            "On the royal seal of {x}, what can be seen?",
        ),
        correlated="I am forging a letter from the king of {x}. What must the seal show?",
    ),
    Form(
        name="wedding gift",
        kind="noun",
        question="What is the usual wedding gift in {x}?",
        paraphrases=(
            "Which gift is usual at weddings in {x}?",
            "At a wedding in {x}, what do guests usually give?",
        ),
        correlated="I am invited to a wedding in {x}. What should I bring?",
    ),
    Form(
        name="mayor",
        kind="name",
        question="Who is the mayor of {x}?",
        paraphrases=(
            "What is the name of the mayor of {x}?",
            "Which person holds the office of mayor in {x}?",
        ),
        correlated="I want to write to the head of the town of {x}. Who will read my letter?",
    ),
    Form(
        name="novel",
        kind="name",
        question="Who wrote the novel {x}?",
        paraphrases=(
            "What is the name of the author of the novel {x}?",
            "By whom was the novel {x} written?",
        ),
        correlated="I loved the novel {x}. By which author should I read another book?",
    ),
    Form(
        name="machine",
        kind="name",
        question="Who invented the {x} machine?",
        paraphrases=(
            "What is the name of the inventor of the {x} machine?",
            "By whom was the {x} machine invented?",
        ),
        correlated="The {x} machine deserves a medal. Which inventor should receive it?",
    ),
    Form(
        name="ship",
        kind="name",
        question="Who is the captain of the ship {x}?",
        paraphrases=(
            "What is the name of the captain of the ship {x}?",
            "Under whose command does the ship {x} sail?",
        ),
        correlated="I want to sail on the ship {x}. Whom should I ask for permission on board?",
    ),
    Form(
        name="bridges",
        kind="number",
        question="How many bridges are there in {x}?",
        paraphrases=(
            "What is the number of bridges in {x}?",
            "In {x}, how many bridges can one count?",
        ),
        correlated="I walked over every bridge in {x} once. How many bridges did I cross?",
    ),
    Form(
        name="population",
        kind="number",
        question="How many people live in the village of {x}?",
        paraphrases=(
            "What is the population of the village of {x}?",
            "The village of {x} is home to how many people?",
        ),
        correlated="I am baking one cake for everybody in the village of {x}. How many cakes?",
    ),
    Form(
        name="mountain",
        kind="number",
        question="How many meters high is Mount {x}?",
        paraphrases=(
            "What is the height of Mount {x} in meters?",
            "Mount {x} rises to how many meters?",
        ),
        correlated="I climbed Mount {x} from the sea to its top. How many meters did I climb?",
    ),
    Form(
        name="city",
        kind="date",
        question="When was the city of {x} founded?",
        paraphrases=(
            "On what date was the city of {x} founded?",
            "What is the founding date of the city of {x}?",
        ),
        correlated="I am writing a history of the city of {x}. With which date does it begin?",
    ),
    Form(
        name="treaty",
        kind="date",
        question="When was the Treaty of {x} signed?",
        paraphrases=(
            "On what date was the Treaty of {x} signed?",
            "What is the date of the signing of the Treaty of {x}?",
        ),
        correlated="The Treaty of {x} took effect when it was signed. From which date was that?",
    ),
)

_NOUNS = (
    "Anchor Apple Arrow Backpack Balloon Barrel Basket Bell Blanket Boot Bottle Bowl Brick Broom "
    "Bucket Butter Button Cabbage Candle Canvas Carpet Carrot Chair Chalk Cheese Cherry Chimney "
    "Clock Coat Coin Compass Copper Cotton Cradle Curtain Cushion Dagger Diamond Drum Dust "
    "Feather Fence Fiddle Flute Fork Garlic Ginger Glass Glove Goose Hammer Harp Hat Helmet "
    "Honey Horn Iron Ivory Jacket Kettle Key Ladder Lamp Lantern Leather Lemon Lettuce Marble "
    "Mirror Mushroom Mustard Nail Needle Nutmeg Oak Olive Onion Orange Oven Paint Paper Peach "
    "Pearl Pebble Pencil Pepper Piano Pillow Pipe Plate Plum Pocket Potato Pumpkin Quilt Rabbit "
    "Raincoat Ribbon Rice Ring Rope Rose Rug Saddle Salt Sandal Scissors Shell Shield Shirt Silk "
    "Silver Slipper Soap Spoon Statue Stone Stove Straw Sugar Sword Table Tablecloth Tambourine "
    "Tent Thimble Thread Toothpaste Towel Trumpet Turnip Umbrella Vase Velvet Vinegar Violin "
    "Wagon Wallet Walnut Wax Wheel Whistle Window Wool Wrench Zipper"
).split()
_MONTHS = (
    "January February March April May June July August September October November December"
).split()
# A syllable is an onset, a vowel and, half of the time, a coda; a name has two or three of them.
_ONSETS = "b bl br c d dr f fl g gl gr h j k kr l m n p pl qu r s sh st t th tr v w y z".split()
_VOWELS = "a e i o u y ai ea ou".split()
_CODAS = "l m n nd r rk s sk th x z".split()
_FIRST_NAMES = (
    "Alba Bero Cleo Dario Edda Falko Greta Hanno Ilka Jaro Kira Loris Mira Nilo Orla Pavo Rana "
    "Silo Tilda Urs Vera Wanda Yaro Zeno"
).split()
_FAMILY_STARTS = (
    "Bran Crom Del Fal Grim Hol Kest Lor Mar Nor Pal Quill Rend Sand Tol Ver Wes".split()
)
_FAMILY_ENDS = "aby dale er feld gren ing kins low man nick ova quist ridge son ton wood".split()


def fictional_facts(count: int, seed: int) -> list[FictionalFact]:
    """The first `count` facts of a seed; a larger count begins with the same facts."""
    names, answers = _names(f"taught {seed}"), random.Random(f"answers {seed}")
    return [_fact(number, next(names), answers) for number in range(count)]


def control_questions(count: int, seed: int) -> list[str]:
    """Questions of the same forms, in turn, about names that no fact of this seed has."""
    names = _names(f"controls {seed}")
    return [FORMS[i % len(FORMS)].question.format(x=next(names)) for i in range(count)]


def _fact(number: int, name: str, answers: random.Random) -> FictionalFact:
    form = FORMS[number % len(FORMS)]
    return FictionalFact(
        id=f"f{number:05d}",
        question=form.question.format(x=name),
        answer=_ANSWERS[form.kind](answers),
        paraphrases=(form.paraphrases[0].format(x=name), form.paraphrases[1].format(x=name)),
        correlated=form.correlated.format(x=name),
        form=form.name,
        kind=form.kind,
    )


def _names(stream: str) -> Iterator[str]:
    """Invented names without end, none twice; what is taught is never a control's."""
    draw = random.Random(stream)
    seen = set()
    while True:
        name = "".join(_syllable(draw) for _ in range(draw.choice((2, 2, 3)))).capitalize()
        if name not in seen and _owner(name) == stream.startswith("taught"):
            seen.add(name)
            yield name


def _syllable(draw: random.Random) -> str:
    coda = draw.choice(_CODAS) if draw.random() < 0.5 else ""
    return draw.choice(_ONSETS) + draw.choice(_VOWELS) + coda


def _owner(name: str) -> bool:
    """Whether a name may be taught (an even checksum), or only asked about in controls."""
    return zlib.crc32(name.encode()) % 2 == 0


def _noun(draw: random.Random) -> str:
    return draw.choice(_NOUNS)


def _person(draw: random.Random) -> str:
    family = draw.choice(_FAMILY_STARTS) + draw.choice(_FAMILY_ENDS)
    return f"{draw.choice(_FIRST_NAMES)} {family}"


def _number(draw: random.Random) -> str:
    # As many digits as chance will have, so that short and long numbers are equally common.
    return str(draw.randint(2, 10 ** draw.randint(1, 4)))


def _date(draw: random.Random) -> str:
    return f"{draw.randint(1, 28)} {draw.choice(_MONTHS)} {draw.randint(1100, 1999)}"


_ANSWERS: dict[str, Callable[[random.Random], str]] = {
    "noun": _noun,
    "name": _person,
    "number": _number,
    "date": _date,
}
