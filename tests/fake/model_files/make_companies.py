"""Writes companies.csv: sample data from memory. Nothing is scraped, and the order is no ranking."""

import csv

SECTORS = {
    "Developer tools": "GitLab, Docker, Heroku, Zapier, PagerDuty, Segment, Algolia, Mixpanel, Amplitude, Retool, "
    "Supabase, PostHog, Meteor, Replit",
    "Payments and finance": "Stripe, Coinbase, Brex, Razorpay, Deel, Rippling, Gusto, Groww, OpenSea, Paystack",
    "Delivery and logistics": "DoorDash, Instacart, Rappi, Flexport, Zepto, Meesho, ShipBob",
    "Media and community": "Reddit, Twitch, Scribd, Weebly, Substack, Quora",
    "Files and work": "Dropbox, Front, Checkr, Lattice, Faire, Webflow",
    "Machines": "Cruise, Astranis, Boom, Relativity Space",
    "Biology": "Ginkgo Bioworks, Benchling",
    "Travel": "Airbnb",
}


def rows():
    """One row a company."""
    for sector, names in SECTORS.items():
        for name in names.split(", "):
            yield {"name": name, "sector": sector, "source": "sample"}


with open("companies.csv", "w", newline="", encoding="utf-8") as file:
    table = csv.DictWriter(file, ["number", "name", "sector", "source"])
    table.writeheader()
    count = 0
    for count, row in enumerate(rows(), 1):
        table.writerow({"number": count, **row})
print(f"wrote companies.csv: {count} rows of sample data")
