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
