"""Made-up decisions: the counts that the tests of the page and of the sentences read."""

from __future__ import annotations

from typing import Any

from prunedge.runs.decision_record import DecisionRecord

CLASSES = ["defective", "functional"]


def counts(found: int, missed: int, alarms: int, quiet: int) -> dict[str, int]:
    return {"found": found, "missed": missed, "alarms": alarms, "quiet": quiet}


def decision(**changes: Any) -> dict[str, Any]:
    """As test.json has one: 98 of 123 found, 12 false alarms among 270."""
    record = {
        "rule": "recall>=0.8",
        "damage": ["defective"],
        "threshold": 0.3,
        "temperature": 1.5,
        "unit": "image",
        "validation": counts(99, 24, 10, 261),
        "test": counts(98, 25, 12, 258),
        "usual": counts(41, 82, 3, 267),
        "validation_error": {"raw": 0.09, "calibrated": 0.02},
        "test_error": {"raw": 0.11, "calibrated": 0.03},
        "curve": {
            "thresholds": [0.9, 0.3, 0.1],
            "found": [40, 98, 123],
            "alarms": [0, 12, 270],
        },
        "reliability": [
            {"count": 300, "predicted": 0.1, "damaged": 0.08},
            {"count": 93, "predicted": 0.8, "damaged": 0.9},
        ],
        "confusion": [[98, 25], [12, 258]],
        "note": "",
    }
    return record | changes


def decisions(**changes: Any) -> dict[str, dict[str, Any]]:
    """Those of the unpruned and the pruned model; `changes` are the pruned one's."""
    return {
        "baseline": decision(threshold=0.4, test=counts(101, 22, 9, 261)),
        "best": decision(**changes),
    }


def cost_of(value: float) -> dict[str, float]:
    """As a record has it where a miss costs 50 and a false alarm 1."""
    return {"miss": 50, "alarm": 1, "value": value, "low": value - 0.5, "high": value + 0.75}


def record(**changes: Any) -> DecisionRecord:
    return DecisionRecord(**decision(**changes))
