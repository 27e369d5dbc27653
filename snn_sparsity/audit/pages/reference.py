"""The parts of docs/audit.md that are made from the checks and from the evidence's types."""

from snn_sparsity.audit.evidence import json_schema
from snn_sparsity.audit.judge.checks import CHECKS

KINDS = {
    "valid": "A failure makes the answer NOT VALID",
    "masked": "A failure makes the answer MASKED",
    "weak": "A failure makes the answer WEAK ATTACK",
    "worked": "Did the attacks work? Stands beside the answers",
    "symptom": "What masked gradients look like, and what the threat model leaves out. Stands beside the answers",
}
BEGIN, END = "<!-- generated: python -m snn_sparsity.audit.pages.reference -->", "<!-- end of what is generated -->"


def reference() -> str:
    """Return the list of checks and the fields of the evidence, in Markdown."""
    lines = [BEGIN, ""]
    for kind, meaning in KINDS.items():
        lines += [f"**{meaning}.**", "", "| check | question | passes if | source | what to do |", "|---|---|---|---|---|"]
        lines += [f"| {one.id} | {one.question} | {one.threshold} | {one.source} | {one.remedy} |" for one in CHECKS if one.kind == kind]
        lines.append("")
    lines += ["### Fields of audit.json", "", "| record | fields |", "|---|---|"]
    for name, record in sorted(json_schema()["$defs"].items()):
        lines.append(f"| {name} | {', '.join(f'`{key}`' for key in record['properties'])} |")
    return "\n".join([*lines, "", END])


if __name__ == "__main__":
    print(reference())
