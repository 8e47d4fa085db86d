"""summarize.py PAPERS SUMMARY: groups abstracts by topic and writes a summary in Markdown."""

import collections
import json
import re
import sys

TOPICS = {
    "Planning": {"plan", "planning"},
    "Memory": {"memory", "recalls", "episodic"},
    "Isolation and safety": {"sandbox", "sandboxes", "isolation", "safety", "attack"},
    "Evaluation": {"evaluation", "evaluating", "benchmark"},
    "Several agents": {"debate", "debating", "several"},
}


def words(paper):
    """The words of a paper, with how often each occurs."""
    return collections.Counter(re.findall(r"[a-z]+", f"{paper['title']} {paper['abstract']}".lower()))


def topic(paper):
    """The topic whose words a paper uses most."""
    count = words(paper)
    return max(TOPICS, key=lambda name: sum(count[word] for word in TOPICS[name]))


with open(sys.argv[1], encoding="utf-8") as file:
    sample = json.load(file)
groups = collections.defaultdict(list)
for paper in sample["papers"]:
    groups[topic(paper)].append(paper)

lines = ["# LLM agents: a summary", "", f"> {sample['note']}", ""]
for name in TOPICS:
    if name in groups:
        lines += [f"## {name} ({len(groups[name])})", ""]
        lines += [f"- **{paper['title']}**: {paper['abstract'].split('. ')[-1]}" for paper in groups[name]]
        lines.append("")
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.write("\n".join(lines))
print(f"{len(sample['papers'])} abstracts in {len(groups)} topics")
