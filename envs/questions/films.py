"""What Films asks about titles, makers and seasons."""

from .sql import Template, extreme, template


def _of_the_title(column: str, *wordings: str) -> Template:
    sql = f"SELECT {column} FROM films WHERE title = {{title}}"
    return template(f"films.{column}", sql, *wordings)


ABOUT_TITLES = (
    _of_the_title(
        "year",
        "In which year was the film '{title}' made?",
        "What is the year of the film '{title}'?",
        "How old is '{title}': when did it first appear, in years AD?",
        "Which twelve months brought us '{title}'?",
    ),
    _of_the_title(
        "released",
        "On which day was the film '{title}' released?",
        "What is the release date of the film '{title}'?",
        "When exactly was the first night of '{title}'?",
        "Name the calendar date on which '{title}' premiered.",
    ),
    _of_the_title(
        "runtime",
        "How many minutes does the film '{title}' run?",
        "What is the runtime of the film '{title}'?",
        "How long does it take to watch '{title}'?",
        "Give the duration of '{title}'.",
    ),
    _of_the_title(
        "rated",
        "How is the film '{title}' rated for age?",
        "What is the age rating of the film '{title}'?",
        "Which label tells parents who may watch '{title}'?",
        "What did the American censors mark '{title}'?",
    ),
    _of_the_title(
        "metacritic",
        "What is the Metacritic score of the film '{title}'?",
        "Which score does the film '{title}' have on Metacritic?",
        "How many points out of 100 does Metacritic give '{title}'?",
        "What do the critics' weighted marks for '{title}' come to at Metacritic?",
    ),
    _of_the_title(
        "tomatometer",
        "What is the Tomatometer of the film '{title}'?",
        "Which percentage does the film '{title}' have on the Tomatometer?",
        "What share of the critics at Rotten Tomatoes liked '{title}', in per cent?",
        "How fresh is '{title}' according to Rotten Tomatoes?",
    ),
    _of_the_title(
        "reviews",
        "How many reviews does the film '{title}' have?",
        "What is the number of reviews of the film '{title}'?",
        "How many critics wrote about '{title}'?",
        "Count the write-ups of '{title}' at Rotten Tomatoes.",
    ),
    _of_the_title(
        "box_office",
        "What is the box office of the film '{title}' in dollars?",
        "How large was the box office of the film '{title}'?",
        "How many dollars did '{title}' take in?",
        "What did people pay altogether for tickets to '{title}'?",
    ),
)


def _credit(kind: str, what: str, table: str, *wordings: str) -> Template:
    sql = f"SELECT {what} FROM films JOIN {table} ON film = id WHERE title = {{title}}"
    return template(kind, sql, *wordings)


ABOUT_CREDITS = (
    _credit(
        "credits.director",
        "name",
        "directors",
        "Who directed the film '{title}'?",
        "Who is the director of the film '{title}'?",
        "Who told the actors of '{title}' what to do?",
        "Name the film-maker behind '{title}'.",
    ),
    _credit(
        "credits.genre",
        "genre",
        "genres",
        "What is the genre of the film '{title}'?",
        "Which genre does the film '{title}' have?",
        "What sort of film is '{title}'?",
        "On which shelf of a film library would '{title}' stand?",
    ),
    _credit(
        "credits.country",
        "country",
        "countries",
        "What is the country of the film '{title}'?",
        "In which country was the film '{title}' produced?",
        "Where does '{title}' come from?",
        "Name the nation whose studios gave us '{title}'.",
    ),
    _credit(
        "credits.actors",
        "count(*)",
        "actors",
        "How many actors are listed for the film '{title}'?",
        "What is the number of actors listed for the film '{title}'?",
        "How large is the recorded cast of '{title}'?",
        "Count the players who are credited with a part in '{title}'.",
    ),
)


def _of_the_pair(column: str, *wordings: str) -> Template:
    sql = (
        f"SELECT {column} FROM films JOIN directors ON directors.film = id JOIN actors ON "
        "actors.film = id WHERE directors.name = {name} AND actors.name = {actor}"
    )
    return template(f"pairs.{column}", sql, *wordings)


ABOUT_PAIRS = (
    _of_the_pair(
        "title",
        "What is the title of the film that {name} directed with {actor}?",
        "Which film by the director {name} has {actor} as an actor?",
        "What is the work called in which {actor} plays for {name}?",
        "Name the picture that {name} and {actor} made together.",
    ),
    _of_the_pair(
        "year",
        "In which year was the film made that {name} directed with {actor}?",
        "What is the year of the film by the director {name} with {actor} as an actor?",
        "When did the work first appear in which {actor} plays for {name}?",
        "Which twelve months brought us the picture that {name} and {actor} made together?",
    ),
    _of_the_pair(
        "runtime",
        "How many minutes does the film run that {name} directed with {actor}?",
        "What is the runtime of the film by the director {name} with {actor} as an actor?",
        "How long does it take to watch the work in which {actor} plays for {name}?",
        "Give the duration of the picture that {name} and {actor} made together.",
    ),
    _of_the_pair(
        "metacritic",
        "What is the Metacritic score of the film that {name} directed with {actor}?",
        "Which score on Metacritic has the film by the director {name} with {actor} as an actor?",
        "How many points out of 100 does Metacritic give the work in which {actor} plays for "
        "{name}?",
        "What do the critics' weighted marks at Metacritic come to for the picture that {name} "
        "and {actor} made together?",
    ),
    _of_the_pair(
        "tomatometer",
        "What is the Tomatometer of the film that {name} directed with {actor}?",
        "Which percentage on the Tomatometer has the film by the director {name} with {actor} as "
        "an actor?",
        "What share of the critics at Rotten Tomatoes liked the work in which {actor} plays for "
        "{name}, in per cent?",
        "How fresh, according to Rotten Tomatoes, is the picture that {name} and {actor} made "
        "together?",
    ),
    _of_the_pair(
        "box_office",
        "What is the box office in dollars of the film that {name} directed with {actor}?",
        "How large was the box office of the film by the director {name} with {actor} as an actor?",
        "How many dollars did the work take in in which {actor} plays for {name}?",
        "What did people pay altogether for tickets to the picture that {name} and {actor} made "
        "together?",
    ),
)
_BY_DIRECTOR = "films JOIN directors ON film = id WHERE name = {name}"
ABOUT_DIRECTORS = (
    template(
        "directors.count",
        f"SELECT count(*) FROM {_BY_DIRECTOR}",
        "How many films did {name} direct?",
        "What is the number of films with {name} as the director?",
        "How large is the body of work of the film-maker {name}?",
        "Count the pictures for which {name} told the actors what to do.",
    ),
    template(
        "directors.first",
        extreme("title", "min", "year", _BY_DIRECTOR),
        "What is the earliest film that {name} directed?",
        "Which film with {name} as the director has the lowest year?",
        "With which picture does the career of the film-maker {name} begin?",
        "Name the oldest work of {name}.",
    ),
    template(
        "directors.longest",
        extreme("title", "max", "runtime", _BY_DIRECTOR),
        "What is the longest film that {name} directed?",
        "Which film with {name} as the director has the highest runtime?",
        "Which picture by the film-maker {name} takes the most time to watch?",
        "Name the work of {name} with the greatest duration.",
    ),
    template(
        "directors.mean_runtime",
        f"SELECT avg(runtime) FROM {_BY_DIRECTOR}",
        "What is the average runtime of the films that {name} directed?",
        "What is the mean runtime of films with {name} as the director?",
        "How many minutes does a picture by the film-maker {name} take on average?",
        "How long is a typical (mean) work of {name}?",
    ),
    template(
        "directors.best",
        extreme("title", "max", "tomatometer", _BY_DIRECTOR),
        "Which film that {name} directed has the highest Tomatometer?",
        "What is the film with the best Tomatometer and {name} as the director?",
        "Which picture by the film-maker {name} is the freshest at Rotten Tomatoes?",
        "Name the work of {name} that the largest share of critics liked.",
    ),
    template(
        "directors.mean_tomatometer",
        f"SELECT avg(tomatometer) FROM {_BY_DIRECTOR}",
        "What is the average Tomatometer of the films that {name} directed?",
        "What is the mean Tomatometer of films with {name} as the director?",
        "How fresh at Rotten Tomatoes is a picture by the film-maker {name} on average?",
        "What share of critics likes a typical (mean) work of {name}?",
    ),
    template(
        "directors.actors",
        "SELECT count(DISTINCT actors.name) FROM directors JOIN actors ON actors.film = "
        "directors.film WHERE directors.name = {name}",
        "How many different actors are listed for the films that {name} directed?",
        "What is the number of different actors in films with {name} as the director?",
        "With how many players has the film-maker {name} worked, according to the credits?",
        "Count the people who have a part in any work of {name}.",
    ),
)
_OF_SEASON = "films JOIN genres ON film = id WHERE genre = {genre} AND year = {year}"
ABOUT_SEASONS = (
    template(
        "seasons.count",
        f"SELECT count(*) FROM {_OF_SEASON}",
        "How many films of the genre {genre} are from {year}?",
        "What is the number of films of the year {year} in the genre {genre}?",
        "How many pictures classed as {genre} came out in {year}?",
        "Count the works that cinemas of {year} would have announced as {genre}.",
    ),
    template(
        "seasons.longest",
        extreme("title", "max", "runtime", _OF_SEASON),
        "What is the longest film of the genre {genre} from {year}?",
        "Which film of the year {year} in the genre {genre} has the highest runtime?",
        "Which picture classed as {genre} that came out in {year} takes the most time to watch?",
        "Name the {genre} work with the greatest duration in the cinemas of {year}.",
    ),
    template(
        "seasons.mean_runtime",
        f"SELECT avg(runtime) FROM {_OF_SEASON}",
        "What is the average runtime of the films of the genre {genre} from {year}?",
        "What is the mean runtime of films of the year {year} in the genre {genre}?",
        "How many minutes does a picture classed as {genre} that came out in {year} take on "
        "average?",
        "How long was a typical (mean) {genre} work in the cinemas of {year}?",
    ),
    template(
        "seasons.most_reviewed",
        extreme("title", "max", "reviews", _OF_SEASON),
        "Which film of the genre {genre} from {year} has the most reviews?",
        "What is the film of the year {year} in the genre {genre} with the highest number of "
        "reviews?",
        "About which picture classed as {genre} that came out in {year} did most critics write?",
        "Name the {genre} work with the most write-ups in the cinemas of {year}.",
    ),
    template(
        "seasons.reviews",
        f"SELECT sum(reviews) FROM {_OF_SEASON}",
        "How many reviews do the films of the genre {genre} from {year} have altogether?",
        "What is the total number of reviews of films of the year {year} in the genre {genre}?",
        "How often did critics write about any picture classed as {genre} that came out in {year}?",
        "Add up the write-ups of all {genre} works in the cinemas of {year}.",
    ),
    template(
        "seasons.best",
        extreme("title", "max", "metacritic", _OF_SEASON),
        "Which film of the genre {genre} from {year} has the highest Metacritic score?",
        "What is the film of the year {year} in the genre {genre} with the best score on "
        "Metacritic?",
        "To which picture classed as {genre} that came out in {year} does Metacritic give the "
        "most points?",
        "Name the {genre} work with the best weighted marks in the cinemas of {year}.",
    ),
)
