"""What Elements asks about elements, isotopes, periods and blocks."""

from .sql import Template, extreme, fact, template

ABOUT_ELEMENTS = (
    fact(
        "elements",
        "number",
        "What is the atomic number of {name}?",
        "Which number does the element {name} have?",
        "How many protons are there in an atom of {name}?",
        "In which place of the periodic table does {name} stand?",
    ),
    fact(
        "elements",
        "symbol",
        "What is the symbol of {name}?",
        "Which symbol does the element {name} have?",
        "How do chemists write {name} for short?",
        "By which letters is {name} known in a formula?",
    ),
    fact(
        "elements",
        "period",
        "In which period of the periodic table is {name}?",
        "What is the period of the element {name}?",
        "In which row of the periodic table does {name} stand?",
        "How many shells of electrons does {name} have?",
    ),
    fact(
        "elements",
        "block",
        "In which block of the periodic table is {name}?",
        "What is the block of the element {name}?",
        "What kind of orbital did the last electron of {name} go into?",
        "Is {name} an s, p, d or f element?",
    ),
    fact(
        "elements",
        "series",
        "To which series of elements does {name} belong?",
        "What is the series of the element {name}?",
        "Which family of elements is {name} counted among?",
        "What sort of element is {name}?",
    ),
    fact(
        "elements",
        "weight",
        "What is the atomic weight of {name}?",
        "Which weight does an atom of the element {name} have?",
        "How heavy is {name}, atom by atom?",
        "How many grams are there in a mole of {name}?",
    ),
    fact(
        "elements",
        "density",
        "What is the density of {name}?",
        "Which density does the element {name} have?",
        "How many grams does a cubic centimetre of {name} weigh?",
        "How much of {name} is packed into one unit of volume?",
    ),
    fact(
        "elements",
        "electronegativity",
        "What is the electronegativity of {name}?",
        "Which electronegativity does the element {name} have?",
        "How strongly does {name} attract electrons on Pauling's scale?",
        "Which value did Pauling give {name}?",
    ),
    fact(
        "elements",
        "discovered",
        "In which year was {name} discovered?",
        "When was the element {name} discovered?",
        "Since when has {name} been known?",
        "What is the date of the first sighting of {name}?",
    ),
)
_ELEMENT_ISOTOPES = "isotopes JOIN elements USING (number) WHERE name = {name}"
ABOUT_KINDS = (
    template(
        "isotopes.count",
        f"SELECT count(*) FROM {_ELEMENT_ISOTOPES}",
        "How many isotopes of {name} are there?",
        "What is the number of isotopes of {name}?",
        "In how many weights does the nucleus of {name} come?",
        "Count the nuclides of {name}.",
    ),
    template(
        "isotopes.lightest",
        f"SELECT min(mass_number) FROM {_ELEMENT_ISOTOPES}",
        "What is the lowest mass number of an isotope of {name}?",
        "Which mass number does the lightest isotope of {name} have?",
        "With how few nucleons has {name} been seen?",
        "How many nucleons are there in the smallest nuclide of {name}?",
    ),
    template(
        "isotopes.heaviest",
        f"SELECT max(mass_number) FROM {_ELEMENT_ISOTOPES}",
        "What is the highest mass number of an isotope of {name}?",
        "Which mass number does the heaviest isotope of {name} have?",
        "With how many nucleons at most has {name} been seen?",
        "How many nucleons are there in the largest nuclide of {name}?",
    ),
    template(
        "isotopes.commonest",
        extreme("mass_number", "max", "abundance", _ELEMENT_ISOTOPES),
        "What is the mass number of the isotope of {name} with the highest abundance?",
        "Which mass number does the most abundant isotope of {name} have?",
        "How many nucleons does {name} mostly have in nature?",
        "How many nucleons are there in the commonest nuclide of {name}?",
    ),
    template(
        "isotopes.first",
        f"SELECT min(isotopes.discovered) FROM {_ELEMENT_ISOTOPES}",
        "In which year was the first isotope of {name} discovered?",
        "When was an isotope of {name} first discovered?",
        "Since when has any nucleus of {name} been known by its weight?",
        "What is the date of the first sighting of a nuclide of {name}?",
    ),
    template(
        "isotopes.last",
        f"SELECT max(isotopes.discovered) FROM {_ELEMENT_ISOTOPES}",
        "In which year was the latest isotope of {name} discovered?",
        "When was an isotope of {name} last discovered?",
        "Since when has no new nucleus of {name} been found?",
        "What is the date of the most recent sighting of a nuclide of {name}?",
    ),
    template(
        "phases.melting_point",
        "SELECT melting_point FROM phases JOIN elements USING (number) WHERE name = {name}",
        "What is the melting point of {name} in kelvin?",
        "At how many kelvin does the element {name} melt?",
        "At which absolute temperature does solid {name} turn liquid?",
        "How many kelvin does it take to make {name} flow?",
    ),
    template(
        "phases.boiling_point",
        "SELECT boiling_point FROM phases JOIN elements USING (number) WHERE name = {name}",
        "What is the boiling point of {name} in kelvin?",
        "At how many kelvin does the element {name} boil?",
        "At which absolute temperature does liquid {name} turn to gas?",
        "How many kelvin does it take to make {name} evaporate with bubbles?",
    ),
)


def _of_the_isotope(kind: str, what: str, *wordings: str) -> Template:
    sql = (
        f"SELECT {what} FROM isotopes JOIN elements USING (number) "
        "WHERE name = {name} AND mass_number = {mass_number}"
    )
    return template(f"isotope.{kind}", sql, *wordings)


ABOUT_ISOTOPES = (
    _of_the_isotope(
        "mass",
        "mass",
        "What is the mass of the isotope {name}-{mass_number}?",
        "Which mass does an atom of {name}-{mass_number} have?",
        "How heavy is {name} with {mass_number} nucleons, in unified units?",
        "What does a nuclide of {name} weigh if its nucleons are {mass_number}?",
    ),
    _of_the_isotope(
        "spin",
        "spin",
        "What is the spin of the isotope {name}-{mass_number}?",
        "Which spin does the nucleus of {name}-{mass_number} have?",
        "What is the angular momentum of {name} with {mass_number} nucleons?",
        "How fast, in units of h-bar, does a nuclide of {name} turn if its nucleons are "
        "{mass_number}?",
    ),
    _of_the_isotope(
        "discovered",
        "isotopes.discovered",
        "In which year was the isotope {name}-{mass_number} discovered?",
        "When was {name}-{mass_number} discovered?",
        "Since when has {name} with {mass_number} nucleons been known?",
        "What is the date of the first sighting of a nuclide of {name} whose nucleons are "
        "{mass_number}?",
    ),
    _of_the_isotope(
        "neutrons",
        "mass_number - number",
        "How many neutrons does the isotope {name}-{mass_number} have?",
        "What is the number of neutrons in {name}-{mass_number}?",
        "How many particles without a charge are there in {name} with {mass_number} nucleons?",
        "Take the protons away from a nuclide of {name} whose nucleons are {mass_number}: how "
        "many are left?",
    ),
)
# Rounded, for versions of sqlite add fractions up differently: by far less than an answer may err.
_DENSE = "elements WHERE period = {period} AND density > {density}"
ABOUT_PERIODS = (
    template(
        "periods.count",
        f"SELECT count(*) FROM {_DENSE}",
        "How many elements of period {period} have a density over {density}?",
        "What is the number of elements in period {period} with a density above {density}?",
        "How often is an element in row {period} of the table denser than {density}?",
        "Count what period {period} has above {density} grams a cubic centimetre.",
    ),
    template(
        "periods.weight",
        f"SELECT round(avg(weight), 6) FROM {_DENSE}",
        "What is the average atomic weight of the elements of period {period} with a density "
        "over {density}?",
        "What is the mean weight of elements in period {period} with a density above {density}?",
        "How heavy on average are the atoms in row {period} of the table that are denser than "
        "{density}?",
        "How many grams has the typical (mean) mole of what period {period} has above {density} "
        "grams a cubic centimetre?",
    ),
    template(
        "periods.lightest",
        extreme("name", "min", "density", _DENSE),
        "Which element of period {period} has the lowest density over {density}?",
        "What is the least dense element in period {period} with a density above {density}?",
        "Name what exceeds {density} by the least in row {period} of the table, by density.",
        "What comes next above {density} grams a cubic centimetre in period {period}?",
    ),
    template(
        "periods.electronegative",
        extreme("name", "max", "electronegativity", _DENSE),
        "Which element of period {period} with a density over {density} has the highest "
        "electronegativity?",
        "What is the most electronegative element in period {period} with a density above "
        "{density}?",
        "Name what attracts electrons most in row {period} of the table, if denser than {density}.",
        "Of what period {period} has above {density} grams a cubic centimetre, which has "
        "Pauling's highest value?",
    ),
    template(
        "periods.electropositive",
        extreme("name", "min", "electronegativity", _DENSE),
        "Which element of period {period} with a density over {density} has the lowest "
        "electronegativity?",
        "What is the least electronegative element in period {period} with a density above "
        "{density}?",
        "Name what attracts electrons least in row {period} of the table, if denser than "
        "{density}.",
        "Of what period {period} has above {density} grams a cubic centimetre, which has "
        "Pauling's lowest value?",
    ),
    template(
        "periods.last",
        extreme("name", "max", "discovered", _DENSE),
        "Which element of period {period} with a density over {density} was discovered last?",
        "What is the latest discovery in period {period} with a density above {density}?",
        "Name what has been known for the shortest time in row {period} of the table, if denser "
        "than {density}.",
        "Of what period {period} has above {density} grams a cubic centimetre, what came to "
        "light most recently?",
    ),
)
_RECENT = "elements WHERE block = {block} AND discovered > {year}"
ABOUT_BLOCKS = (
    template(
        "blocks.count",
        f"SELECT count(*) FROM {_RECENT}",
        "How many elements of the {block} block were discovered after {year}?",
        "What is the number of elements in block {block} discovered later than {year}?",
        "How often did an {block} element come to light after {year}?",
        "Count the {block} elements that nobody knew in {year}.",
    ),
    template(
        "blocks.first",
        extreme("name", "min", "discovered", _RECENT),
        "Which element of the {block} block was the first to be discovered after {year}?",
        "What is the earliest discovery in block {block} later than {year}?",
        "Name the {block} element that came to light next after {year}.",
        "Of the {block} elements that nobody knew in {year}, which was found soonest?",
    ),
    template(
        "blocks.weight",
        f"SELECT round(avg(weight), 6) FROM {_RECENT}",
        "What is the average atomic weight of the elements of the {block} block discovered after "
        "{year}?",
        "What is the mean weight of elements in block {block} discovered later than {year}?",
        "How heavy on average are the atoms of an {block} element that came to light after {year}?",
        "How many grams has the typical (mean) mole of an {block} element that nobody knew in "
        "{year}?",
    ),
    template(
        "blocks.lightest",
        extreme("name", "min", "density", _RECENT),
        "Which element of the {block} block discovered after {year} has the lowest density?",
        "What is the least dense element in block {block} discovered later than {year}?",
        "Name the {block} element with the fewest grams a cubic centimetre that came to light "
        "after {year}.",
        "Of the {block} elements that nobody knew in {year}, which is packed most loosely?",
    ),
    template(
        "blocks.densest",
        extreme("name", "max", "density", _RECENT),
        "Which element of the {block} block discovered after {year} has the highest density?",
        "What is the densest element in block {block} discovered later than {year}?",
        "Name the {block} element with the most grams a cubic centimetre that came to light "
        "after {year}.",
        "Of the {block} elements that nobody knew in {year}, which is packed most tightly?",
    ),
    template(
        "blocks.electronegative",
        extreme("name", "max", "electronegativity", _RECENT),
        "Which element of the {block} block discovered after {year} has the highest "
        "electronegativity?",
        "What is the most electronegative element in block {block} discovered later than {year}?",
        "Name the {block} element that came to light after {year} and attracts electrons most.",
        "Of the {block} elements that nobody knew in {year}, which has Pauling's highest value?",
    ),
    template(
        "blocks.numbers",
        f"SELECT sum(number) FROM {_RECENT}",
        "What is the sum of the atomic numbers of the elements of the {block} block discovered "
        "after {year}?",
        "What is the total of the numbers of elements in block {block} discovered later than "
        "{year}?",
        "How many protons does one atom of each {block} element that came to light after {year} "
        "give together?",
        "Add up the places in the table of the {block} elements that nobody knew in {year}.",
    ),
)
