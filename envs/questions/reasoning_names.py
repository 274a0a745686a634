"""The generators of reasoning-gym that are worlds here; a list, so that none is imported for it.

Of the 106 that version 0.1.25 has, 40 are left out:

=======================================  ==========================================================
their tasks have no reference answer     boxnet, graph_color, propositional_logic, rubiks_cube,
                                         rush_hour
their answers are fewer than eight       acre, aiw, circuit_logic, course_schedule,
                                         game_of_life_halting, isomorphic_strings, mahjong_puzzle,
                                         maze, ransom_note, self_reference, syllogism,
                                         zebra_puzzles
a question is too long, or has signs     codeio, emoji_mystery, figlet_font, futoshiki,
that no observation may hold             intermediate_integration, modulo_grid, quantum_lock,
                                         rectangle_count, simple_integration
a seed does not fix the item: a global   knight_swap, list_functions, pool_matrix;
generator is read, or the order of a     polynomial_multiplication, word_ladder
set of strings
an item takes 50 ms or more, or seconds  sokoban, sudoku; basic_arithmetic, number_sequence
now and then
a wrong answer gets full marks: 0 for    coin_flip, puzzle24
every chance, any four numbers for 24
they print                               bf, tower_of_hanoi
it mixes the others                      composite
=======================================  ==========================================================

Most have a curriculum: attributes, each with levels of its own. The tasks called hard have all of
them at one level, and of a range of levels only the highest: the lowest level at which no attribute
ends lower than by default or has its middle lower, one has its middle higher by an eighth, and no
kind of question is left out. 25 of the 66 have no hard tasks:

=======================================  ==========================================================
they have no curriculum                  gsm_symbolic
no level of it is harder like this       arc_agi, count_bits, letter_jumble, mini_sudoku
it asks for words that are not there     spell_backward
a task takes 50 ms or more               advanced_geometry, arc_1d, binary_matrix, countdown,
                                         game_of_life, jugs, kakurasu, knights_knaves,
                                         largest_island, n_queens, polynomial_equations, rearc,
                                         simple_equations, string_splitting
and so it does, or there is none, since  manipulate_matrix, needle_haystack, number_format,
most questions are too long              number_sorting, rotten_oranges
=======================================  ==========================================================
"""

NAMES = (
    "ab",
    "advanced_geometry",
    "arc_1d",
    "arc_agi",
    "base_conversion",
    "binary_alternation",
    "binary_matrix",
    "bitwise_arithmetic",
    "caesar_cipher",
    "calendar_arithmetic",
    "chain_sum",
    "color_cube_rotation",
    "complex_arithmetic",
    "count_bits",
    "count_primes",
    "countdown",
    "cryptarithm",
    "decimal_arithmetic",
    "decimal_chain_sum",
    "dice",
    "family_relationships",
    "fraction_simplification",
    "game_of_life",
    "gcd",
    "group_anagrams",
    "gsm_symbolic",
    "jugs",
    "kakurasu",
    "knights_knaves",
    "largest_island",
    "lcm",
    "leg_counting",
    "letter_counting",
    "letter_jumble",
    "manipulate_matrix",
    "mini_sudoku",
    "n_queens",
    "needle_haystack",
    "number_filtering",
    "number_format",
    "number_sorting",
    "palindrome_generation",
    "palindrome_partitioning",
    "path_star",
    "polynomial_equations",
    "power_function",
    "prime_factorization",
    "products",
    "rearc",
    "rotate_matrix",
    "rotten_oranges",
    "sentence_reordering",
    "shortest_path",
    "simple_equations",
    "simple_geometry",
    "spell_backward",
    "spiral_matrix",
    "string_insertion",
    "string_manipulation",
    "string_splitting",
    "string_synthesis",
    "survo",
    "time_intervals",
    "tsumego",
    "word_sequence_reversal",
    "word_sorting",
)
"""Generators that are registered, each without and with the Python tool."""

HARD = {
    "ab": 1,
    "base_conversion": 1,
    "binary_alternation": 1,
    "bitwise_arithmetic": 2,
    "caesar_cipher": 1,
    "calendar_arithmetic": 3,
    "chain_sum": 4,
    "color_cube_rotation": 1,
    "complex_arithmetic": 1,
    "count_primes": 2,
    "cryptarithm": 1,
    "decimal_arithmetic": 3,
    "decimal_chain_sum": 2,
    "dice": 1,
    "family_relationships": 5,
    "fraction_simplification": 2,
    "gcd": 1,
    "group_anagrams": 1,
    "lcm": 1,
    "leg_counting": 9,
    "letter_counting": 4,
    "number_filtering": 1,
    "palindrome_generation": 1,
    "palindrome_partitioning": 2,
    "path_star": 2,
    "power_function": 3,
    "prime_factorization": 1,
    "products": 4,
    "rotate_matrix": 1,
    "sentence_reordering": 1,
    "shortest_path": 1,
    "simple_geometry": 1,
    "spiral_matrix": 1,
    "string_insertion": 1,
    "string_manipulation": 1,
    "string_synthesis": 1,
    "survo": 1,
    "time_intervals": 6,
    "tsumego": 3,
    "word_sequence_reversal": 1,
    "word_sorting": 2,
}
"""Generators with hard tasks, and the level of their curricula that these have."""

SLOW = frozenset(
    {"advanced_geometry", "countdown", "game_of_life", "jugs", "polynomial_equations", "rearc"}
)
"""Those of whose tasks one takes from a quarter of a second to a second."""
