"""
Events of the second domain of the generated briefs (`crosstask.data.briefs`): news from farms.

The entries have the form of `crosstask.data.briefs.lexicon.EVENTS`, and the templates for every event are
shared. One seventh of the words in passages, and some words in questions, do not occur in the first domain.
All words of the summaries do: a small model whose tokenizer was trained on the first domain cannot write
others, unlike a pretrained model.
"""

from __future__ import annotations

EVENTS = {
    "harvest": {
        "name": "the harvest",
        "heads": [
            "the farmers carried the goods from the {s}",
            "the harvest at the {s} is over",
            "harvesting has ended at the {s}",
            "the {s} finished gathering its crops",
        ],
        "fillers": [
            "the barns are full to the roof",
            "mills in the region expect more grain",
            "the soil is dry for the season",
        ],
        "lead": "count duration when where what cost how who why payer".split(),
        "words": {
            "building": "mill market hotel".split(),
            "count": "farmers workers volunteers".split(),
            "duration": "days weeks".split(),
            "how": "tractors trucks barrels".split(),
            "what": "leaves shells trees".split(),
            "why": "showers floods gusts".split(),
        },
        "who": [
            ["the work was led by {v}", "{v} oversaw the gathering"],
            ["Who led the work?"],
        ],
        "what": [
            [
                "the trucks carried {v}",
                "most of the crop was {v}",
                "the crates were filled with {v}",
                "the pick of the crop were {v}",
            ],
            ["What did the trucks carry?", "What came from the harvest?"],
        ],
        "when": [
            ["the last goods left on {v}", "packing ended on {v}"],
            ["When did the last goods leave?"],
        ],
        "where": [
            ["the goods came from {v}", "the plots stretch beyond {v}"],
            ["From which town did the goods come?"],
        ],
        "cost": [
            ["the goods were sold for {v}", "buyers offered {v} for the crop"],
            ["For how much were the goods sold?"],
        ],
        "count": [
            [
                "{v} did the work",
                "the rows were picked by {v}",
                "it took {v} to clear the rows",
                "a crew of {v} was hired",
            ],
            ["How many people did the work?"],
        ],
        "why": [
            ["the work was late because of {v}", "ripening was slowed by {v}"],
            ["Why was the work late?"],
        ],
        "how": [
            ["the goods were carried with {v}", "growers relied on {v}"],
            ["How were the goods carried?"],
        ],
        "duration": [
            ["the work lasted {v}", "the pickers were busy for {v}"],
            ["How long did the work last?"],
        ],
    },
    "auction": {
        "name": "the auction",
        "heads": [
            "the farmers sold their goods at the {s}",
            "the {s} held its livestock auction",
            "bidders filled the {s}",
            "an auction drew breeders to the {s}",
        ],
        "fillers": [
            "bidding was brisk from the start",
            "hay was stacked along the pens",
            "breeders praised the herd",
        ],
        "lead": "cost what count where when who payer why how duration".split(),
        "words": {
            "building": "market warehouse hotel".split(),
            "count": "farmers families guests".split(),
            "duration": "hours days".split(),
            "how": "vans trucks ropes".split(),
            "what": "carpets clocks pianos".split(),
            "why": "shortages infections floods".split(),
        },
        "who": [
            ["the show was led by {v}", "{v} held the gavel"],
            ["Who led the show?"],
        ],
        "what": [
            [
                "the owners sold {v}",
                "the pens were crowded with {v}",
                "first in the ring were {v}",
                "the catalog praised {v}",
            ],
            ["What did the owners sell?", "What was in the pens?"],
        ],
        "when": [["the goods were sold on {v}", "bidding opened on {v}"], ["When were the goods sold?"]],
        "where": [
            ["the owners came from {v}", "the pens were set up outside {v}"],
            ["From which town did the owners come?"],
        ],
        "cost": [
            ["the total reached {v}", "the prize bull fetched {v}"],
            ["What did the total reach?"],
        ],
        "count": [
            [
                "{v} looked at the goods",
                "bids came from {v}",
                "{v} had registered to bid",
                "the ring was lined by {v}",
            ],
            ["How many people looked at the goods?"],
        ],
        "why": [
            ["the owners sold because of {v}", "herds had shrunk after {v}"],
            ["Why did the owners sell?"],
        ],
        "how": [
            ["the goods came in with {v}", "handlers loaded the animals with {v}"],
            ["How did the goods come in?"],
        ],
        "duration": [
            ["the show went on for {v}", "the ring was busy for {v}"],
            ["How long did the show go on?"],
        ],
    },
    "fair": {
        "name": "the fair",
        "heads": [
            "the farmers filled the {s} for the show",
            "the {s} was host to the county fair",
            "the county fair returned to the {s}",
            "ribbons for cows were handed out at the {s}",
        ],
        "fillers": [
            "pies were sold by the slice",
            "a parade of tractors and cows closed it",
            "the judges tasted corn and honey",
        ],
        "lead": "what who when where count cost duration payer how why".split(),
        "words": {
            "building": "stadium market library".split(),
            "count": "farmers visitors children".split(),
            "duration": "days weeks".split(),
            "how": "weights scanners cameras".split(),
            "what": "paintings scarves vases".split(),
            "why": "showers delays gusts".split(),
        },
        "who": [
            ["the show was led by {v}", "{v} won the blue ribbon"],
            ["Who led the show?"],
        ],
        "what": [
            [
                "the tents were full of {v}",
                "the longest tables displayed {v}",
                "the jury marveled at {v}",
                "baskets brimmed with {v}",
            ],
            ["What were the tents full of?", "What did the jury look at?"],
        ],
        "when": [["the show opened on {v}", "the jury met on {v}"], ["When did the show open?"]],
        "where": [
            ["the tents stood in {v}", "the stalls stood outside {v}"],
            ["Where did the tents stand?"],
        ],
        "cost": [
            ["the show cost {v} to stage", "winners shared {v}"],
            ["How much did it cost to stage the show?"],
        ],
        "count": [
            [
                "{v} walked through the gates",
                "the contest attracted {v}",
                "entries came from {v}",
                "{v} competed for ribbons",
            ],
            ["How many people walked through the gates?"],
        ],
        "why": [
            ["tents were needed because of {v}", "it had been postponed because of {v}"],
            ["Why were tents needed?"],
        ],
        "how": [
            ["the goods were examined with {v}", "the jury measured with {v}"],
            ["How were the goods examined?"],
        ],
        "duration": [
            ["the show ran for {v}", "judging lasted {v}"],
            ["How long did the show run?"],
        ],
    },
    "blight": {
        "name": "the blight",
        "heads": [
            "the farmers found beetles at the {s}",
            "mold is spreading through the {s}",
            "the {s} is losing plants to a blight",
            "sick plants were discovered at the {s}",
        ],
        "fillers": [
            "neighboring growers check their leaves",
            "the cooperative sent samples to a laboratory",
            "beekeepers moved their hives away",
        ],
        "lead": "what why cost count where when duration how payer who".split(),
        "words": {
            "building": "mill museum library".split(),
            "count": "farmers residents families".split(),
            "duration": "weeks months".split(),
            "how": "pumps saws drones".split(),
            "what": "leaves trees books".split(),
            "why": "floods infections leaks".split(),
        },
        "who": [
            ["the crews were led by {v}", "{v} diagnosed the disease"],
            ["Who led the crews?"],
        ],
        "what": [
            [
                "the beetles destroyed {v}",
                "worst affected are {v}",
                "the disease feeds on {v}",
                "inspectors burned {v}",
            ],
            ["What did the beetles destroy?", "What has the disease reached?"],
        ],
        "when": [
            ["the damage was first seen on {v}", "inspectors arrived on {v}"],
            ["When was the damage first seen?"],
        ],
        "where": [
            ["the beetles came from {v}", "the rot crept toward {v}"],
            ["From which town did the beetles come?"],
        ],
        "cost": [
            ["the owners lost {v}", "growers lost {v}"],
            ["How much did the owners lose?"],
        ],
        "count": [
            [
                "{v} asked for help",
                "the losses ruined {v}",
                "{v} uprooted their plants",
                "compensation was promised to {v}",
            ],
            ["How many people asked for help?"],
        ],
        "why": [
            ["the damage was blamed on {v}", "experts blame {v}"],
            ["On what was the damage blamed?"],
        ],
        "how": [
            ["crews fight the beetles with {v}", "the plants were treated with {v}"],
            ["How do crews fight the beetles?"],
        ],
        "duration": [
            ["the cleanup will take {v}", "the beds stay empty for {v}"],
            ["How long will the cleanup take?"],
        ],
    },
}
