"""Programs with a loop, which keep a value t while they go through their input."""

from .programs import LIST, POSITIVE, TEXT, Option, Shape, Step, Value, each

_START = each("{k}", "{k}", lambda k: k, range(10))
_TEST = [
    Option("n is even", "n % 2 == 0", lambda t, n: n % 2 == 0),
    Option("n is larger than t", "n > t", lambda t, n: n > t),
    Option("t is even", "t % 2 == 0", lambda t, n: t % 2 == 0),
    *each("n is larger than {k}", "n > {k}", lambda t, n, k: n > k, range(-2, 11)),
    *each("n is a multiple of {k}", "n % {k} == 0", lambda t, n, k: n % k == 0, range(3, 6)),
    *each("t is larger than {k}", "t > {k}", lambda t, n, k: t > k, range(0, 31, 5)),
]
_UPDATE = [
    Option("add n to t", "t + n", lambda t, n: t + n),
    Option("subtract n from t", "t - n", lambda t, n: t - n),
    Option("set t to n", "n", lambda t, n: n),
    Option("set t to n minus t", "n - t", lambda t, n: n - t),
    Option("add the square of n to t", "t + n * n", lambda t, n: t + n * n),
    Option("set t to the larger of t and n", "max(t, n)", max),
    Option("set t to the smaller of t and n", "min(t, n)", min),
    Option("double t", "t * 2", lambda t, n: t * 2),
    Option("leave t as it is", "t", lambda t, n: t),
    *each("add {k} to t", "t + {k}", lambda t, n, k: t + k, range(1, 10)),
    *each("subtract {k} from t", "t - {k}", lambda t, n, k: t - k, range(1, 10)),
]
_FINAL = [
    Option("t", "t", lambda t, x: t),
    Option("t plus the length of x", "t + len(x)", lambda t, x: t + len(x)),
    Option("the absolute value of t", "abs(t)", lambda t, x: abs(t)),
    *each("t times {k}", "t * {k}", lambda t, x, k: t * k, range(2, 6)),
    *each("{k} minus t", "{k} - t", lambda t, x, k: k - t, range(1, 11)),
    *each(
        "the remainder of t on division by {k} (from 0 to {k} - 1)",
        "t % {k}",
        lambda t, x, k: t % k,
        range(7, 13),
    ),
]

_NOTHING = [Option("an empty string", '""', lambda: "")]
_TEST_LETTER = [
    Option("n is a vowel (a, e, i, o, u)", 'n in "aeiou"', lambda t, n: n in "aeiou"),
    Option("n is a space", 'n == " "', lambda t, n: n == " "),
    Option("n is in t already", "n in t", lambda t, n: n in t),
    *each("n is {k}", 'n == "{k}"', lambda t, n, k: n == k, "aeilnr"),
    *each(
        "n is a letter from a to {k}",
        '"a" <= n <= "{k}"',
        lambda t, n, k: "a" <= n <= k,
        "cdefghijklmnopqr",
    ),
    *each("t is longer than {k}", "len(t) > {k}", lambda t, n, k: len(t) > k, range(2, 8)),
]
_UPDATE_TEXT = [
    Option("append n to t", "t + n", lambda t, n: t + n),
    Option("put n in front of t", "n + t", lambda t, n: n + t),
    Option("append n twice to t", "t + n + n", lambda t, n: t + n + n),
    Option("append n as a capital to t", "t + n.upper()", lambda t, n: t + n.upper()),
    Option("put n as a capital in front of t", "n.upper() + t", lambda t, n: n.upper() + t),
    Option("drop the last character of t, if any", "t[:-1]", lambda t, n: t[:-1]),
    Option("drop the first character of t, if any", "t[1:]", lambda t, n: t[1:]),
    Option("turn t round", "t[::-1]", lambda t, n: t[::-1]),
    Option("leave t as it is", "t", lambda t, n: t),
    *each("append {k} to t", 't + "{k}"', lambda t, n, k: t + k, "-*xyz"),
    *each("put {k} in front of t", '"{k}" + t', lambda t, n, k: k + t, "-*xyz"),
]
_FINAL_TEXT = [
    Option("t", "t", lambda t, x: t),
    Option("t backwards", "t[::-1]", lambda t, x: t[::-1]),
    Option("t and then x", "t + x", lambda t, x: t + x),
    *each("the first {k} characters of t", "t[:{k}]", lambda t, x, k: t[:k], range(5, 9)),
    *each("the last {k} characters of t", "t[-{k}:]", lambda t, x, k: t[-k:], range(5, 9)),
    *each("{k} and then t", '"{k}" + t', lambda t, x, k: k + t, "+=#"),
]

_BOUND = each("{k}", "{k}", lambda k: k, range(6))
_TEST_LEFT = [
    Option("x is even", "x % 2 == 0", lambda x: x % 2 == 0),
    *each("x is a multiple of {k}", "x % {k} == 0", lambda x, k: x % k == 0, range(3, 7)),
    *each("x is larger than {k}", "x > {k}", lambda x, k: x > k, range(10, 70, 10)),
]
_LESS = [
    *each("divide x by {k} and round down", "x // {k}", lambda x, k: x // k, range(2, 6)),
    *each("subtract {k} from x", "x - {k}", lambda x, k: x - k, range(3, 16)),
]
_GATHER = [
    Option("add 1 to t", "t + 1", lambda t, x: t + 1),
    Option("add x to t", "t + x", lambda t, x: t + x),
    Option("set t to x minus t", "x - t", lambda t, x: x - t),
    *each("add the remainder of x on division by {k} (from 0 to {k} - 1) to t", "t + x % {k}",
          lambda t, x, k: t + x % k, range(3, 8)),
]  # fmt: skip
_RETURNED = each("t plus {k}", "t + {k}", lambda t, k: t + k, range(1, 10))


def _fold(x: Value, start: Step, test: Step, then: Step, other: Step, final: Step) -> Value:
    t = start()
    for n in x:
        t = then(t, n) if test(t, n) else other(t, n)
    return final(t, x)


def _lessen(
    x: Value, bound: Step, test: Step, then: Step, other: Step, gather: Step, final: Step
) -> Value:
    # Ends: each option of _LESS makes a positive x smaller.
    t = 0
    while x > bound():
        x = then(x) if test(x) else other(x)
        t = gather(t, x)
    return final(t)


_FOLD_CODE = (
    "def f(x):\n    t = {}\n    for n in x:\n        if {}:\n            t = {}\n"
    "        else:\n            t = {}\n    return {}"
)
_LESSEN_WORDS = (
    "Start with t = 0. As long as x is larger than {}: first, if {}, {}; otherwise, {}; "
    "then, with this new x, {}. At last return {}."
)
_LESSEN_CODE = (
    "def f(x):\n    t = 0\n    while x > {}:\n        if {}:\n            x = {}\n"
    "        else:\n            x = {}\n        t = {}\n    return {}"
)

LOOPS = (
    Shape(
        "list loop",
        LIST,
        "Start with t = {}. Then, for each number n of x in order: if {}, {}; otherwise, {}. "
        "Return {}.",
        _FOLD_CODE,
        (_START, _TEST, _UPDATE, _UPDATE, _FINAL),
        _fold,
    ),
    Shape(
        "string loop",
        TEXT,
        "Start with t = {}. Then, for each character n of x in order: if {}, {}; otherwise, {}. "
        "Return {}.",
        _FOLD_CODE,
        (_NOTHING, _TEST_LETTER, _UPDATE_TEXT, _UPDATE_TEXT, _FINAL_TEXT),
        _fold,
    ),
    Shape(
        "countdown",
        POSITIVE,
        _LESSEN_WORDS,
        _LESSEN_CODE,
        (_BOUND, _TEST_LEFT, _LESS, _LESS, _GATHER, _RETURNED),
        _lessen,
    ),
)
