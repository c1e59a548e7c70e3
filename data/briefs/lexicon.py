"""
Words and sentence templates of the generated briefs (`crosstask.data.briefs`).

In a template, {v} stands for the value of the fact, {s} for the building that the story is about, {e} for the
event and {n} for the name of a person. Templates are clauses; the generator capitalizes and joins them.
Summaries use the first template of a list. No template begins with a value that is written in lower case, so
that an answer has the same spelling in the passage, the summary and the row.
"""

from __future__ import annotations

# --- Left and right words of the values -----------------------------------------------------------

FIRST_NAMES = """Anna Paul Maria Victor Helen Omar Grace Felix Nora Hugo Clara Ivan Julia Simon
Laura Peter""".split()
SURNAMES = """Keller Novak Jensen Moreau Silva Tanaka Weber Rossi Larsen Patel Dubois Brennan Okafor
Castillo Haddad Ivanov""".split()
TOWN_STARTS = "Dorn Ash Fox Raven Elm Silver Oak Amber Pine Cedar Hazel Willow".split()
TOWN_ENDS = "Harbor Valley Springs Falls Bay Heights Creek Ridge".split()
BODY_NAMES = """Halden Marlow Whitfield Sterling Kingsley Fairfax Lennox Redmond Wexford
Carlisle""".split()
BODIES = "Trust Bank Foundation Fund Society".split()
MONTHS = [
    f"{month} {{}}"
    for month in """January February March April May June July August September October November
December""".split()
]
DAYS = "10 12 13 15 16 18 19 21 24 27".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
HOURS = "morning afternoon evening night".split()
SUMS = "2 3 4 6 7 8 9 11 13 14 16 17 19 23 26 28 32 38".split()
SCALES = ["${},000", "${} million", "${},500"]
HEADCOUNTS = "36 45 50 64 72 80 90 110 120 150 180 200 240 310 420".split()
NUMBERS = "two three four five six seven eight nine ten twelve".split()
BUILDING_ADJECTIVES = "old central northern southern stone brick historic small".split()
THING_ADJECTIVES = "red blue green white yellow gray large rare unusual striped".split()
CAUSE_ADJECTIVES = "constant repeated serious sudden recent severe frequent unexpected".split()
TOOL_ADJECTIVES = "portable rented borrowed modern cheap simple special sturdy".split()

# --- Templates that fit every event ---------------------------------------------------------------

CLAUSES = {
    "who": ["the person in charge was {v}", "{v} was in charge of it all"],
    "what": [],
    "when": ["it happened on {v}", "reports give the day as {v}"],
    "where": ["it happened in {v}", "the scene was in {v}"],
    "cost": ["the bill comes to {v}", "the total cost is {v}"],
    "count": [],
    "why": ["the reason was {v}", "officials point to {v}"],
    "how": ["it was all done with {v}", "the tools used were {v}"],
    "duration": ["it took {v} in all", "it was over after {v}"],
    "payer": [
        "the {v} will pay the bill",
        "the money will come from the {v}",
        "the {v} has agreed to pay",
        "payment is up to the {v}",
    ],
}
QUESTIONS = {
    "who": [
        "Who was in charge?",
        "Who is named in the report on {e}?",
        "Which person was in charge?",
    ],
    "what": ["What things are mentioned?", "Which things does the report on {e} mention?"],
    "when": ["When was {e}?", "When did it happen?", "On which day was {e}?"],
    "where": ["Where was {e}?", "Where did it happen?", "In which town was {e}?"],
    "cost": ["How much did {e} cost?", "How much money was it?", "How much is the bill?"],
    "count": [
        "How many people were there?",
        "How many people are mentioned?",
        "How many were counted?",
    ],
    "why": ["What was the reason?", "Why, according to officials?", "What reason is given?"],
    "how": ["How was it done?", "By what means was it done?", "What tools were used?"],
    "duration": ["How long did it take?", "How long was it?", "For how long did it go on?"],
    "payer": [
        "Which organization will pay the bill?",
        "Which organization pays for {e}?",
        "Who will pay the bill?",
        "Who is going to pay for {e}?",
    ],
}
BUILDING_QUESTIONS = [
    "Which building is it?",
    "Which building is named?",
    "Which building is the report about?",
    "Which building has to do with {e}?",
]
FILLERS = [
    "reporters came to the scene",
    "more details are expected soon",
    "local people followed the news closely",
    "officials thanked everyone for their patience",
    "pictures were shared online",
    "there was no further statement",
    "many were surprised by the news",
]
ATTRIBUTIONS = ["officials said that", "local radio reported that", "it is now known that"]

# --- The events -----------------------------------------------------------------------------------
# "lead" lists the types of facts in the order in which a generic summary prefers them. "words" has the right
# words of the values that fit the event. Every other entry has the clauses and the questions of one type of
# fact.

EVENTS = {
    "opening": {
        "name": "the opening",
        "heads": [
            "the {s} opened its doors",
            "crowds celebrated the opening of the {s}",
            "the {s} welcomed its first guests",
            "a ceremony marked the opening of the {s}",
        ],
        "fillers": [
            "a band played outside",
            "coffee was served to everyone",
            "the mood was cheerful",
        ],
        "lead": "where count who cost what when payer duration why how".split(),
        "words": {
            "building": "library museum theater market".split(),
            "what": "clocks maps paintings".split(),
            "count": "visitors children students".split(),
            "why": "complaints delays shortages".split(),
            "how": "cranes drills trucks".split(),
            "duration": "weeks months".split(),
        },
        "who": [
            ["Mayor {v} led the ceremony", "the ceremony was led by Mayor {v}"],
            ["Who led the ceremony?"],
        ],
        "what": [
            [
                "the first rooms show {v}",
                "guests found {v} inside",
                "the main hall is full of {v}",
                "on display are {v}",
            ],
            ["What is on display?", "What did guests find inside?"],
        ],
        "when": [
            ["the doors opened on {v}", "guests first came in on {v}"],
            ["When did the doors open?"],
        ],
        "where": [["the site lies in {v}", "builders chose a site in {v}"], ["Where is the site?"]],
        "cost": [
            ["building costs reached {v}", "builders spent {v}"],
            ["How much did builders spend?"],
        ],
        "count": [
            [
                "{v} came on the first day",
                "the first day drew {v}",
                "a crowd of {v} came in",
                "{v} stood in line at the door",
            ],
            ["How many people came?"],
        ],
        "why": [
            ["it was needed because of {v}", "the need arose from {v}"],
            ["Why was it needed?"],
        ],
        "how": [
            ["the walls were raised with {v}", "builders used {v}"],
            ["How were the walls raised?"],
        ],
        "duration": [
            ["the building work lasted {v}", "builders needed {v}"],
            ["How long did builders need?"],
        ],
    },
    "fire": {
        "name": "the fire",
        "heads": [
            "a fire swept through the {s}",
            "flames tore through the {s}",
            "a fire broke out at the {s}",
            "a big fire damaged the {s}",
        ],
        "fillers": ["smoke hung over the roofs", "the ruins are still warm", "nobody was hurt"],
        "lead": "count why cost where when duration what who how payer".split(),
        "words": {
            "building": "bakery hotel mill factory".split(),
            "what": "carpets books pianos".split(),
            "count": "residents workers guests".split(),
            "why": "sparks leaks explosions".split(),
            "how": "pumps ladders drones".split(),
            "duration": "hours days".split(),
        },
        "who": [
            ["fire chief {v} led the crews", "the crews were led by fire chief {v}"],
            ["Who led the crews?"],
        ],
        "what": [
            [
                "the flames destroyed {v}",
                "the fire ruined {v}",
                "lost in the flames were {v}",
                "nothing is left of the {v}",
            ],
            ["What did the fire destroy?", "What was lost in the flames?"],
        ],
        "when": [
            ["the alarm was raised on {v}", "smoke was first seen on {v}"],
            ["When was the alarm raised?"],
        ],
        "where": [
            ["the fire was in {v}", "sirens were heard across {v}"],
            ["Where were sirens heard?"],
        ],
        "cost": [
            ["the damage is put at {v}", "repairs will cost {v}"],
            ["How much will repairs cost?"],
        ],
        "count": [
            [
                "{v} were led to safety",
                "crews led {v} to safety",
                "{v} had to leave",
                "the fire drove out {v}",
            ],
            ["How many people were led to safety?"],
        ],
        "why": [
            ["the fire was caused by {v}", "inspectors blame {v}"],
            ["Why did the fire start?"],
        ],
        "how": [
            ["crews fought it with {v}", "firefighters used {v}"],
            ["How did crews fight the fire?"],
        ],
        "duration": [
            ["the fire burned for {v}", "crews needed {v} to put it out"],
            ["How long did it burn?"],
        ],
    },
    "storm": {
        "name": "the storm",
        "heads": [
            "a storm struck the {s}",
            "a storm tore the roof off the {s}",
            "high winds battered the {s}",
            "a violent storm flooded the {s}",
        ],
        "fillers": [
            "schools stayed closed",
            "the sky is clear again",
            "streets were covered in mud",
        ],
        "lead": "when cost count what where duration who how why payer".split(),
        "words": {
            "building": "harbor school tower market".split(),
            "what": "fences tents boats".split(),
            "count": "residents families farmers".split(),
            "why": "gusts showers floods".split(),
            "how": "saws tractors trucks".split(),
            "duration": "hours days".split(),
        },
        "who": [
            ["engineer {v} led the cleanup", "the cleanup was led by engineer {v}"],
            ["Who led the cleanup?"],
        ],
        "what": [
            [
                "the wind smashed {v}",
                "the storm carried off {v}",
                "blown away were {v}",
                "streets were littered with {v}",
            ],
            ["What did the wind smash?", "What was blown away?"],
        ],
        "when": [
            ["the storm arrived on {v}", "the winds were strongest on {v}"],
            ["When did the storm arrive?"],
        ],
        "where": [
            ["the storm hit {v}", "the worst damage was in {v}"],
            ["Where was the worst damage?"],
        ],
        "cost": [
            ["the damage is put at {v}", "the cleanup will cost {v}"],
            ["How much will the cleanup cost?"],
        ],
        "count": [
            [
                "{v} lost power",
                "the storm cut off {v}",
                "{v} were left in the dark",
                "power failed for {v}",
            ],
            ["How many people lost power?"],
        ],
        "why": [
            ["the damage is blamed on {v}", "the damage came from {v}"],
            ["Why was there damage?"],
        ],
        "how": [
            ["crews cleared the roads with {v}", "helpers used {v}"],
            ["How were the roads cleared?"],
        ],
        "duration": [
            ["the storm raged for {v}", "the winds blew for {v}"],
            ["How long did the storm rage?"],
        ],
    },
    "strike": {
        "name": "the strike",
        "heads": [
            "workers at the {s} went on strike",
            "staff walked out at the {s}",
            "a strike shut down the {s}",
            "a strike began at the {s}",
        ],
        "fillers": [
            "the gates remain shut",
            "passing cars honked in support",
            "talks are to resume soon",
        ],
        "lead": "why duration count who where when cost what how payer".split(),
        "words": {
            "building": "factory shipyard mill warehouse".split(),
            "what": "shirts tires bicycles".split(),
            "count": "workers drivers cooks".split(),
            "why": "layoffs accidents shortages".split(),
            "how": "vans barrels tractors".split(),
            "duration": "days weeks".split(),
        },
        "who": [
            ["union leader {v} led the protest", "the protest was led by union leader {v}"],
            ["Who led the protest?"],
        ],
        "what": [
            [
                "shops ran out of {v}",
                "the strike stopped deliveries of {v}",
                "in short supply were {v}",
                "customers had to wait for {v}",
            ],
            ["What did shops run out of?", "Which goods were in short supply?"],
        ],
        "when": [["work stopped on {v}", "the walkout began on {v}"], ["When did work stop?"]],
        "where": [
            ["the strike is in {v}", "strikers marched through {v}"],
            ["Where did strikers march?"],
        ],
        "cost": [
            ["the owners lost {v}", "the walkout cost the owners {v}"],
            ["How much did the owners lose?"],
        ],
        "count": [
            [
                "{v} joined the walkout",
                "the strike involves {v}",
                "{v} stayed away from work",
                "the union counted {v}",
            ],
            ["How many people joined the walkout?"],
        ],
        "why": [
            ["the strike was called over {v}", "workers are angry about {v}"],
            ["Why are workers angry?"],
        ],
        "how": [
            ["strikers blocked the gate with {v}", "the gate was closed with {v}"],
            ["How was the gate blocked?"],
        ],
        "duration": [
            ["the strike may last {v}", "the walkout is planned for {v}"],
            ["How long may the strike last?"],
        ],
    },
    "match": {
        "name": "the match",
        "heads": [
            "the home team won the final at the {s}",
            "the cup final was played at the {s}",
            "fans filled the {s} for the final",
            "the {s} hosted the cup final",
        ],
        "fillers": [
            "both teams shook hands",
            "the cheering was heard far away",
            "a rematch is planned",
        ],
        "lead": "who where when count why what cost duration how payer".split(),
        "words": {
            "building": "stadium arena park".split(),
            "what": "flags scarves banners".split(),
            "count": "visitors children students".split(),
            "why": "injuries showers delays".split(),
            "how": "cameras weights screens".split(),
            "duration": "hours days".split(),
        },
        "who": [
            ["coach {v} led the home team", "the home team was led by coach {v}"],
            ["Who led the home team?"],
        ],
        "what": [
            [
                "fans waved {v}",
                "the crowd carried {v}",
                "supporters held up {v}",
                "the stands were full of {v}",
            ],
            ["What did fans wave?", "What did the crowd carry?"],
        ],
        "when": [
            ["the match was played on {v}", "the teams met on {v}"],
            ["When did the teams meet?"],
        ],
        "where": [
            ["the match was played in {v}", "the teams met in {v}"],
            ["Where did the teams meet?"],
        ],
        "cost": [
            ["the final cost {v} to stage", "organizers spent {v}"],
            ["How much did organizers spend?"],
        ],
        "count": [
            [
                "{v} watched the game",
                "the game drew {v}",
                "a crowd of {v} cheered",
                "seats were sold to {v}",
            ],
            ["How many people watched the game?"],
        ],
        "why": [
            ["the start was late because of {v}", "the start was put off after {v}"],
            ["Why was the start late?"],
        ],
        "how": [
            ["the players trained with {v}", "coaches made use of {v}"],
            ["How did the players train?"],
        ],
        "duration": [
            ["fans waited {v} for tickets", "the wait for tickets was {v}"],
            ["How long did fans wait?"],
        ],
    },
    "study": {
        "name": "the study",
        "heads": [
            "researchers at the {s} published a study",
            "a team at the {s} reported new results",
            "the {s} announced the results of a study",
            "a large study was finished at the {s}",
        ],
        "fillers": [
            "other teams hope to repeat the work",
            "the results were a surprise",
            "critics remain unsure",
        ],
        "lead": "what duration who count when how where why cost payer".split(),
        "words": {
            "building": "college institute academy".split(),
            "what": "leaves shells beetles".split(),
            "count": "volunteers students farmers".split(),
            "why": "accidents shortages infections".split(),
            "how": "scanners cameras drones".split(),
            "duration": "weeks months".split(),
        },
        "who": [
            ["professor {v} led the team", "the team was led by professor {v}"],
            ["Who led the team?"],
        ],
        "what": [
            [
                "the team examined {v}",
                "the study looked at {v}",
                "samples were taken from {v}",
                "the results concern {v}",
            ],
            ["What did the team examine?", "What did the study look at?"],
        ],
        "when": [
            ["the results came out on {v}", "the paper appeared on {v}"],
            ["When did the results come out?"],
        ],
        "where": [
            ["the work was done in {v}", "the team is based in {v}"],
            ["Where was the work done?"],
        ],
        "cost": [["the study cost {v}", "the team spent {v}"], ["How much did the team spend?"]],
        "count": [
            [
                "{v} took part",
                "the team questioned {v}",
                "the study followed {v}",
                "data came from {v}",
            ],
            ["How many people took part?"],
        ],
        "why": [
            ["the study was prompted by {v}", "the team began work after {v}"],
            ["Why was the study begun?"],
        ],
        "how": [
            ["readings were taken with {v}", "the team used {v}"],
            ["How were readings taken?"],
        ],
        "duration": [
            ["the study ran for {v}", "the team worked for {v}"],
            ["How long did the study run?"],
        ],
    },
    "vote": {
        "name": "the vote",
        "heads": [
            "the council voted to rebuild the {s}",
            "the council approved plans for the {s}",
            "plans for the {s} passed the council",
            "a vote cleared the way for repairs to the {s}",
        ],
        "fillers": [
            "the result was close",
            "the public seats were full",
            "some members left early",
        ],
        "lead": "cost why when who count where what payer duration how".split(),
        "words": {
            "building": "bridge station school tower".split(),
            "what": "benches lamps trees".split(),
            "count": "residents drivers families".split(),
            "why": "floods accidents complaints".split(),
            "how": "tablets scanners screens".split(),
            "duration": "hours days".split(),
        },
        "who": [
            ["council member {v} led the debate", "the debate was led by council member {v}"],
            ["Who led the debate?"],
        ],
        "what": [
            [
                "the plan includes {v}",
                "members also asked for {v}",
                "also in the plan are {v}",
                "drawings of the site show {v}",
            ],
            ["What does the plan include?", "What did members ask for?"],
        ],
        "when": [
            ["the vote was held on {v}", "members cast their votes on {v}"],
            ["When was the vote held?"],
        ],
        "where": [
            ["the council met in {v}", "the vote took place in {v}"],
            ["Where did the council meet?"],
        ],
        "cost": [
            ["the plan will cost {v}", "the council set aside {v}"],
            ["How much did the council set aside?"],
        ],
        "count": [
            [
                "{v} backed the plan",
                "the plan was backed by {v}",
                "{v} signed a petition",
                "a petition was signed by {v}",
            ],
            ["How many people backed the plan?"],
        ],
        "why": [
            ["the plan was drawn up after {v}", "members spoke of {v}"],
            ["Why was the plan drawn up?"],
        ],
        "how": [["votes were counted with {v}", "clerks used {v}"], ["How were votes counted?"]],
        "duration": [
            ["the debate lasted {v}", "members talked for {v}"],
            ["How long did the debate last?"],
        ],
    },
    "theft": {
        "name": "the theft",
        "heads": [
            "thieves broke into the {s}",
            "a gang robbed the {s}",
            "a theft was discovered at the {s}",
            "burglars raided the {s}",
        ],
        "fillers": [
            "nobody has been arrested",
            "the doors have new locks now",
            "police asked for help",
        ],
        "lead": "what how cost when where count who why duration payer".split(),
        "words": {
            "building": "museum hotel bank".split(),
            "what": "coins rings vases".split(),
            "count": "guests visitors workers".split(),
            "why": "delays leaks repairs".split(),
            "how": "ladders ropes drills".split(),
            "duration": "hours days".split(),
        },
        "who": [
            ["detective {v} led the search", "the search was led by detective {v}"],
            ["Who led the search?"],
        ],
        "what": [
            [
                "the thieves took {v}",
                "the gang got away with {v}",
                "among the missing items are {v}",
                "police are looking for {v}",
            ],
            ["What did the thieves take?", "What was stolen?"],
        ],
        "when": [
            ["the thieves struck on {v}", "the alarm went off on {v}"],
            ["When did the thieves strike?"],
        ],
        "where": [
            ["the theft was in {v}", "police closed roads in {v}"],
            ["Where did police close roads?"],
        ],
        "cost": [
            ["the loss is put at {v}", "the theft cost the owners {v}"],
            ["How much is the loss?"],
        ],
        "count": [
            [
                "{v} were questioned",
                "police questioned {v}",
                "officers spoke to {v}",
                "statements came from {v}",
            ],
            ["How many people were questioned?"],
        ],
        "why": [
            ["the alarm was off because of {v}", "the alarm had failed after {v}"],
            ["Why was the alarm off?"],
        ],
        "how": [
            ["the thieves got in with {v}", "the gang used {v}"],
            ["How did the thieves get in?"],
        ],
        "duration": [
            ["the search lasted {v}", "police searched for {v}"],
            ["How long did police search?"],
        ],
    },
}

# --- Templates that name a person, for stories about several people -------------------------------

PEOPLE_INTRODUCTIONS = [
    "several people are named in reports on {e}",
    "some people have spoken about {e}",
]
PEOPLE = {
    "when": [
        [
            "{n} arrived on {v}",
            "{n} came on {v}",
            "the visit of {n} was on {v}",
            "{n} was seen there on {v}",
        ],
        [
            "When did {n} arrive?",
            "When did {n} come?",
            "On which day did {n} arrive?",
            "When was {n} there?",
        ],
    ],
    "where": [
        [
            "{n} lives in {v}",
            "{n} comes from {v}",
            "the home of {n} is in {v}",
            "{v} is the home of {n}",
        ],
        [
            "Where does {n} live?",
            "Where is {n} from?",
            "In which town does {n} live?",
            "Where is the home of {n}?",
        ],
    ],
    "cost": [
        ["{n} gave {v}", "{n} donated {v}", "a gift of {v} came from {n}", "{n} offered {v}"],
        [
            "How much did {n} give?",
            "How much money came from {n}?",
            "How much was the gift of {n}?",
            "How much did {n} donate?",
        ],
    ],
    "count": [
        ["{n} brought {v}", "{n} was joined by {v}", "with {n} came {v}", "{n} led a group of {v}"],
        [
            "How many people did {n} bring?",
            "How many people came with {n}?",
            "How many people joined {n}?",
            "How many were with {n}?",
        ],
    ],
    "duration": [
        [
            "{n} stayed for {v}",
            "{n} left after {v}",
            "the stay of {n} lasted {v}",
            "{n} was there for {v}",
        ],
        [
            "How long did {n} stay?",
            "How long was {n} there?",
            "How long did the stay of {n} last?",
            "For how long did {n} stay?",
        ],
    ],
    "payer": [
        [
            "{n} works for the {v}",
            "{n} spoke for the {v}",
            "the {v} sent {n}",
            "the {v} employs {n}",
        ],
        [
            "Which organization does {n} work for?",
            "Which organization sent {n}?",
            "Which organization employs {n}?",
            "Who employs {n}?",
        ],
    ],
}
