"""Programs that take one step after the other, on an integer, a list or a string."""

from functools import partial

from .programs import INTEGER, LIST, TEXT, Input, Option, Shape, Step, Value, each

# Level "expression": three steps on an integer.
_SHIFT = [
    *each("add {k}", "x + {k}", lambda x, k: x + k, range(1, 21)),
    *each("subtract {k}", "x - {k}", lambda x, k: x - k, range(1, 21)),
    *each("subtract it from {k}", "{k} - x", lambda x, k: k - x, range(1, 21)),
]
_SCALE = [
    *each("multiply it by {k}", "x * {k}", lambda x, k: x * k, range(2, 10)),
    Option("square it", "x * x", lambda x: x * x),
    Option("take its absolute value", "abs(x)", abs),
    Option(
        "add up its decimal digits (its sign does not count)",
        "sum(int(d) for d in str(abs(x)))",
        lambda x: sum(int(d) for d in str(abs(x))),
    ),
]
_CUT = [
    *each(
        "take the remainder on division by {k} (from 0 to {k} - 1, also for a negative number)",
        "x % {k}",
        lambda x, k: x % k,
        range(4, 14),
    ),
    *each("divide by {k} and round down", "x // {k}", lambda x, k: x // k, range(2, 10)),
    *each(
        "take the larger of it and {k}", "max(x, {k})", lambda x, k: max(x, k), range(-20, 41, 5)
    ),
    *each(
        "take the smaller of it and {k}", "min(x, {k})", lambda x, k: min(x, k), range(-20, 41, 5)
    ),
]

# Level "composition": three steps on a list or a string.
_MAP = [
    *each("add {k} to every number", "[n + {k} for n in x]", lambda x, k: [n + k for n in x],
           range(1, 10)),
    *each("subtract {k} from every number", "[n - {k} for n in x]",
           lambda x, k: [n - k for n in x], range(1, 10)),
    *each("multiply every number by {k}", "[n * {k} for n in x]", lambda x, k: [n * k for n in x],
           range(2, 8)),
    *each("replace every number by its remainder on division by {k} (from 0 to {k} - 1)",
           "[n % {k} for n in x]", lambda x, k: [n % k for n in x], range(3, 10)),
    Option("square every number", "[n * n for n in x]", lambda x: [n * n for n in x]),
    Option("take the absolute value of every number", "[abs(n) for n in x]",
           lambda x: [abs(n) for n in x]),
]  # fmt: skip
_KEEP = [
    Option("keep the even numbers", "[n for n in x if n % 2 == 0]",
           lambda x: [n for n in x if n % 2 == 0]),
    Option("keep the odd numbers", "[n for n in x if n % 2 == 1]",
           lambda x: [n for n in x if n % 2 == 1]),
    *each("keep the numbers larger than {k}", "[n for n in x if n > {k}]",
           lambda x, k: [n for n in x if n > k], range(-4, 11)),
    *each("keep the numbers smaller than {k}", "[n for n in x if n < {k}]",
           lambda x, k: [n for n in x if n < k], range(2, 17)),
    *each("drop the multiples of {k}", "[n for n in x if n % {k} != 0]",
           lambda x, k: [n for n in x if n % k != 0], range(2, 6)),
    *each("keep the first {k} numbers (all if there are fewer)", "x[:{k}]", lambda x, k: x[:k],
           range(2, 5)),
    *each("keep the last {k} numbers (all if there are fewer)", "x[-{k}:]", lambda x, k: x[-k:],
           range(2, 5)),
    *each("drop the first {k} numbers", "x[{k}:]", lambda x, k: x[k:], range(1, 3)),
    Option("keep the first number, the third, the fifth and so on", "x[::2]", lambda x: x[::2]),
    Option("drop each number that came before", "list(dict.fromkeys(x))",
           lambda x: list(dict.fromkeys(x))),
]  # fmt: skip
_ORDER = [
    Option("sort the numbers, smallest first", "sorted(x)", sorted),
    Option("sort the numbers, largest first", "sorted(x)[::-1]", lambda x: sorted(x)[::-1]),
    Option("reverse the list", "x[::-1]", lambda x: x[::-1]),
    Option("move the first number to the end", "x[1:] + x[:1]", lambda x: x[1:] + x[:1]),
    Option("move the last number to the front", "x[-1:] + x[:-1]", lambda x: x[-1:] + x[:-1]),
    Option("replace every number by the sum of it and all numbers before it",
           "[sum(x[:i + 1]) for i in range(len(x))]",
           lambda x: [sum(x[: i + 1]) for i in range(len(x))]),
    Option("replace the list by the differences of neighbours, each number minus the one before",
           "[x[i] - x[i - 1] for i in range(1, len(x))]",
           lambda x: [x[i] - x[i - 1] for i in range(1, len(x))]),
]  # fmt: skip
_TOTAL = [
    Option("take the sum", "sum(x)", sum),
    Option("take the sum of the squares", "sum([n * n for n in x])",
           lambda x: sum(n * n for n in x)),
    Option("take the largest number, 0 if there is none", "max(x) if x else 0",
           lambda x: max(x, default=0)),
    Option("take the smallest number, 0 if there is none", "min(x) if x else 0",
           lambda x: min(x, default=0)),
    Option("take the first number, 0 if there is none", "x[0] if x else 0",
           lambda x: x[0] if x else 0),
    Option("take the last number, 0 if there is none", "x[-1] if x else 0",
           lambda x: x[-1] if x else 0),
    Option("take the largest minus the smallest number, 0 if there is none",
           "max(x) - min(x) if x else 0", lambda x: max(x) - min(x) if x else 0),
    *each("take the sum and multiply it by {k}", "sum(x) * {k}", lambda x, k: sum(x) * k,
           range(2, 6)),
]  # fmt: skip
_LETTERS = [
    *each("remove every {k}", 'x.replace("{k}", "")', lambda x, k: x.replace(k, ""), "aeioulnrst"),
    *(
        Option(f"replace every {a} by {b}", f'x.replace("{a}", "{b}")',
               partial(lambda x, a, b: x.replace(a, b), a=a, b=b))
        for a in "aeioulnrst"
        for b in "aouz"
        if a != b
    ),
    Option("remove all spaces", 'x.replace(" ", "")', lambda x: x.replace(" ", "")),
    Option("put - in place of each space", 'x.replace(" ", "-")', lambda x: x.replace(" ", "-")),
    Option("write every character twice", '"".join([c + c for c in x])',
           lambda x: "".join(c + c for c in x)),
    Option("remove the vowels (a, e, i, o, u)", '"".join([c for c in x if c not in "aeiou"])',
           lambda x: "".join(c for c in x if c not in "aeiou")),
    Option("turn it into capitals", "x.upper()", str.upper),
]  # fmt: skip
_ARRANGE = [
    Option("write it backwards", "x[::-1]", lambda x: x[::-1]),
    Option("put its words in the opposite order", '" ".join(x.split()[::-1])',
           lambda x: " ".join(x.split()[::-1])),
    Option("sort its words by alphabet", '" ".join(sorted(x.split()))',
           lambda x: " ".join(sorted(x.split()))),
    Option("keep its first character, the third, the fifth and so on", "x[::2]", lambda x: x[::2]),
    *each("move its first {k} characters to the end", "x[{k}:] + x[:{k}]",
           lambda x, k: x[k:] + x[:k], range(2, 5)),
    *each("drop its first {k} characters", "x[{k}:]", lambda x, k: x[k:], range(2, 5)),
    *each("drop its last {k} characters", "x[:-{k}]", lambda x, k: x[:-k], range(2, 5)),
    *each("keep its first {k} characters", "x[:{k}]", lambda x, k: x[:k], range(6, 10)),
]  # fmt: skip
_COUNT = [
    Option("take its length", "len(x)", len),
    Option("take the number of different characters in it", "len(set(x))", lambda x: len(set(x))),
    *each("count the letters {k} in it", 'x.count("{k}")', lambda x, k: x.count(k), "aeilnrt"),
    Option("take the length of its longest word, 0 if there is none",
           "max([len(w) for w in x.split()] + [0])",
           lambda x: max((len(w) for w in x.split()), default=0)),
]  # fmt: skip


def _in_turn(x: Value, *steps: Step) -> Value:
    for step in steps:
        x = step(x)
    return x


def _shapes(kind: str, given: Input, *orders: tuple[list[Option], ...]) -> tuple[Shape, ...]:
    """Return a shape for each order of pools."""
    words = "Do this in turn, each to the result before: (1) {}; (2) {}; (3) {}. Return the result."
    code = "def f(x):\n    x = {}\n    x = {}\n    return {}"
    return tuple(Shape(kind, given, words, code, pools, _in_turn) for pools in orders)


EXPRESSIONS = _shapes(
    "integer",
    INTEGER,
    (_SHIFT, _SCALE, _CUT),
    (_SHIFT, _CUT, _SCALE),
    (_SCALE, _SHIFT, _CUT),
    (_SCALE, _CUT, _SHIFT),
    (_CUT, _SCALE, _SHIFT),
    (_CUT, _SHIFT, _SCALE),
)
COMPOSITIONS = (
    *_shapes(
        "list",
        LIST,
        (_KEEP, _MAP, _TOTAL),
        (_MAP, _KEEP, _TOTAL),
        (_ORDER, _KEEP, _TOTAL),
        (_MAP, _ORDER, _KEEP),
        (_KEEP, _ORDER, _MAP),
        (_ORDER, _KEEP, _MAP),
    ),
    *_shapes(
        "string",
        TEXT,
        (_LETTERS, _ARRANGE, _COUNT),
        (_ARRANGE, _LETTERS, _COUNT),
        (_ARRANGE, _LETTERS, _ARRANGE),
        (_LETTERS, _ARRANGE, _LETTERS),
        (_ARRANGE, _ARRANGE, _LETTERS),
        (_LETTERS, _LETTERS, _ARRANGE),
    ),
)
