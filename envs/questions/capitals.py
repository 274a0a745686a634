"""What Capitals asks about countries and cities."""

from .sql import Template, extreme, fact, template

ABOUT_COUNTRIES = (
    fact(
        "countries",
        "capital",
        "What is the capital of {name}?",
        "Which city is the capital of {name}?",
        "From which city is {name} governed?",
        "Name the seat of government of {name}.",
    ),
    fact(
        "countries",
        "currency",
        "What is the currency of {name}?",
        "Which currency is used in {name}?",
        "With which money do people pay in {name}?",
        "What do shops in {name} accept as cash?",
    ),
    fact(
        "countries",
        "continent",
        "On which continent is {name}?",
        "What is the continent of {name}?",
        "Which part of the world does {name} belong to?",
        "Where on the globe does {name} lie?",
    ),
    fact(
        "countries",
        "population",
        "What is the population of {name}?",
        "How many people live in {name}?",
        "How many inhabitants does {name} have?",
        "Count the residents of {name}.",
    ),
    fact(
        "countries",
        "area",
        "What is the area of {name} in square kilometres?",
        "How large is the area of {name}?",
        "How many square kilometres does {name} cover?",
        "How big is the territory of {name}?",
    ),
)
ABOUT_CITIES = (
    fact(
        "cities",
        "country",
        "In which country is {name}?",
        "Which country is the city of {name} in?",
        "To which nation does {name} belong?",
        "Where is the city of {name}?",
    ),
    fact(
        "cities",
        "population",
        "What is the population of {name}?",
        "How many people live in {name}?",
        "How many inhabitants does {name} have?",
        "Count the residents of {name}.",
    ),
    fact(
        "cities",
        "timezone",
        "What is the timezone of {name}?",
        "Which timezone is {name} in?",
        "By which clock do people in {name} live?",
        "Whose local time is kept in {name}?",
    ),
    fact(
        "cities",
        "latitude",
        "What is the latitude of {name}?",
        "At which latitude is {name}?",
        "How far north of the equator is {name}?",
        "How many degrees north lies {name}?",
    ),
)


def _of_the_capital(column: str, *wordings: str) -> Template:
    sql = (
        f"SELECT cities.{column} FROM countries JOIN cities ON cities.country = countries.name "
        "AND cities.name = countries.capital WHERE countries.name = {name}"
    )
    return template(f"capital.{column}", sql, *wordings)


ABOUT_CAPITALS = (
    _of_the_capital(
        "population",
        "What is the population of the capital of {name}?",
        "How many people live in the capital of {name}?",
        "How many inhabitants does the seat of government of {name} have?",
        "Count the residents of the city from which {name} is governed.",
    ),
    _of_the_capital(
        "timezone",
        "What is the timezone of the capital of {name}?",
        "Which timezone is the capital of {name} in?",
        "By which clock do people live in the seat of government of {name}?",
        "Whose local time is kept in the city from which {name} is governed?",
    ),
    _of_the_capital(
        "latitude",
        "What is the latitude of the capital of {name}?",
        "At which latitude is the capital of {name}?",
        "How far north of the equator is the seat of government of {name}?",
        "How many degrees north lies the city from which {name} is governed?",
    ),
    _of_the_capital(
        "longitude",
        "What is the longitude of the capital of {name}?",
        "At which longitude is the capital of {name}?",
        "How far east of Greenwich is the seat of government of {name}?",
        "How many degrees east lies the city from which {name} is governed?",
    ),
    template(
        "capital.larger_cities",
        "SELECT count(*) FROM cities JOIN countries ON cities.country = countries.name JOIN cities "
        "AS seat ON seat.country = countries.name AND seat.name = countries.capital "
        "WHERE countries.name = {name} AND cities.population > seat.population",
        "How many cities of {name} have a larger population than its capital?",
        "How many cities of {name} are larger than its capital?",
        "How often is a city of {name} bigger than the seat of government?",
        "In how many cities of {name} do more people live than where it is governed from?",
    ),
)


def _of_the_country(column: str, *wordings: str) -> Template:
    sql = (
        f"SELECT countries.{column} FROM cities JOIN countries ON countries.name = cities.country "
        "WHERE cities.name = {name}"
    )
    return template(f"country_of.{column}", sql, *wordings)


ABOUT_HOME_COUNTRIES = (
    _of_the_country(
        "capital",
        "What is the capital of the country in which {name} is?",
        "Which city is the capital of the country of {name}?",
        "From which city is the nation governed to which {name} belongs?",
        "Name the seat of government of the nation that has {name} in it.",
    ),
    _of_the_country(
        "currency",
        "Which currency is used in {name}?",
        "What is the currency of the country in which {name} is?",
        "With which money do people pay in {name}?",
        "What do shops in {name} accept as cash?",
    ),
    _of_the_country(
        "continent",
        "On which continent is the city of {name}?",
        "What is the continent of the country in which {name} is?",
        "Which part of the world does {name} belong to?",
        "Where on the globe lies the nation that has {name} in it?",
    ),
    _of_the_country(
        "population",
        "What is the population of the country in which {name} is?",
        "How many people live in the country of {name}?",
        "How many inhabitants does the nation have to which {name} belongs?",
        "Count the residents of the nation that has {name} in it.",
    ),
    _of_the_country(
        "area",
        "What is the area in square kilometres of the country in which {name} is?",
        "How large is the area of the country of {name}?",
        "How many square kilometres does the nation cover to which {name} belongs?",
        "How big is the territory of the nation that has {name} in it?",
    ),
)
_LARGE_CITIES = "cities WHERE country = {name} AND population > {threshold}"
ABOUT_LARGE_CITIES = (
    template(
        "cities.count",
        f"SELECT count(*) FROM {_LARGE_CITIES}",
        "How many cities of {name} have a population over {threshold:,}?",
        "What is the number of cities in {name} with more than {threshold:,} people?",
        "How often does a city of {name} exceed {threshold:,} inhabitants?",
        "Count the cities of {name} that are home to over {threshold:,} residents.",
    ),
    template(
        "cities.sum",
        f"SELECT sum(population) FROM {_LARGE_CITIES}",
        "What is the total population of the cities of {name} with more than {threshold:,} "
        "people each?",
        "How many people live in the cities of {name} that have a population over {threshold:,}?",
        "Add up the inhabitants of all cities of {name} that exceed {threshold:,} each.",
        "How many residents are there together in cities of {name} of over {threshold:,}?",
    ),
    template(
        "cities.mean",
        f"SELECT avg(population) FROM {_LARGE_CITIES}",
        "What is the average population of the cities of {name} with more than {threshold:,} "
        "people?",
        "What is the mean population of cities in {name} with a population over {threshold:,}?",
        "How many inhabitants does a city of {name} have on average, among those that exceed "
        "{threshold:,}?",
        "How big is the typical (mean) city of {name} of over {threshold:,} residents?",
    ),
    template(
        "cities.smallest",
        extreme("name", "min", "population", _LARGE_CITIES),
        "Which city of {name} has the smallest population over {threshold:,}?",
        "What is the smallest city in {name} with more than {threshold:,} people?",
        "Name the least populous city of {name} that still exceeds {threshold:,} inhabitants.",
        "Where in {name} do the fewest residents live, among cities of over {threshold:,}?",
    ),
    template(
        "cities.northernmost",
        extreme("name", "max", "latitude", _LARGE_CITIES),
        "Which city of {name} with a population over {threshold:,} has the highest latitude?",
        "What is the northernmost city in {name} with more than {threshold:,} people?",
        "Name the city farthest north in {name} that exceeds {threshold:,} inhabitants.",
        "Of the cities of {name} of over {threshold:,} residents, which is nearest to the "
        "North Pole?",
    ),
    template(
        "cities.southernmost",
        extreme("name", "min", "latitude", _LARGE_CITIES),
        "Which city of {name} with a population over {threshold:,} has the lowest latitude?",
        "What is the southernmost city in {name} with more than {threshold:,} people?",
        "Name the city farthest south in {name} that exceeds {threshold:,} inhabitants.",
        "Of the cities of {name} of over {threshold:,} residents, which is nearest to the "
        "South Pole?",
    ),
)
_LARGE_COUNTRIES = "countries WHERE continent = {continent} AND population > {threshold}"
ABOUT_CONTINENTS = (
    template(
        "countries.count",
        f"SELECT count(*) FROM {_LARGE_COUNTRIES}",
        "How many countries of {continent} have a population over {threshold:,}?",
        "What is the number of countries in {continent} with more than {threshold:,} people?",
        "How often does a nation of {continent} exceed {threshold:,} inhabitants?",
        "Count the nations of {continent} that are home to over {threshold:,} residents.",
    ),
    template(
        "countries.area",
        f"SELECT sum(area) FROM {_LARGE_COUNTRIES}",
        "What is the total area of the countries of {continent} with a population over "
        "{threshold:,}?",
        "How large is the area of all countries in {continent} with more than {threshold:,} "
        "people together?",
        "Add up the square kilometres of the nations of {continent} that exceed {threshold:,} "
        "inhabitants.",
        "How much territory do the nations of {continent} of over {threshold:,} residents "
        "share out?",
    ),
    template(
        "countries.mean",
        f"SELECT avg(population) FROM {_LARGE_COUNTRIES}",
        "What is the average population of the countries of {continent} with more than "
        "{threshold:,} people?",
        "What is the mean population of countries in {continent} with a population over "
        "{threshold:,}?",
        "How many inhabitants does a nation of {continent} have on average, among those that "
        "exceed {threshold:,}?",
        "How populous is the typical (mean) nation of {continent} of over {threshold:,} residents?",
    ),
    template(
        "countries.least_populous",
        extreme("name", "min", "population", _LARGE_COUNTRIES),
        "Which country of {continent} has the smallest population over {threshold:,}?",
        "What is the least populous country in {continent} with more than {threshold:,} people?",
        "Name the nation of {continent} that exceeds {threshold:,} inhabitants by the least.",
        "Where in {continent} do the fewest residents live, among nations of over {threshold:,}?",
    ),
    template(
        "countries.largest",
        extreme("name", "max", "area", _LARGE_COUNTRIES),
        "Which country of {continent} with a population over {threshold:,} has the largest area?",
        "What is the largest country by area in {continent} with more than {threshold:,} people?",
        "Name the nation of {continent} that exceeds {threshold:,} inhabitants and has the "
        "most territory.",
        "Of the nations of {continent} of over {threshold:,} residents, which covers the most "
        "square kilometres?",
    ),
    template(
        "countries.smallest",
        extreme("name", "min", "area", _LARGE_COUNTRIES),
        "Which country of {continent} with a population over {threshold:,} has the smallest area?",
        "What is the smallest country by area in {continent} with more than {threshold:,} people?",
        "Name the nation of {continent} that exceeds {threshold:,} inhabitants and has the "
        "least territory.",
        "Of the nations of {continent} of over {threshold:,} residents, which covers the "
        "fewest square kilometres?",
    ),
)
