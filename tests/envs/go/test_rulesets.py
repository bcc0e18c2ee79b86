import json

import pytest

from envs.go.rulesets import NAMED, Ruleset, parse_rules


def test_names_and_objects():
    assert parse_rules("Chinese").superko == "simple" and parse_rules("Tromp Taylor").suicide
    assert (parse_rules("japanese").scoring, parse_rules("Japanese").komi) == ("TERRITORY", 6.5)
    assert parse_rules("AGA").superko == "situational" and parse_rules("chinese_ogs").superko == "positional"
    for rules in NAMED.values():
        assert parse_rules(str(rules)) == rules == parse_rules(json.loads(str(rules)))
        assert parse_rules(str(rules.played)).scoring == "AREA"
    assert parse_rules('{"ko":"SITUATIONAL"}') == Ruleset("SITUATIONAL")


@pytest.mark.parametrize(
    "wrong", ["", "chess", "[1]", '{"ko":"NONE"}', '{"suicide":1}', '{"ko":[]}', '{"golf":true}', "[" * 5000, 3, None]
)
def test_what_are_no_rules(wrong):
    with pytest.raises(ValueError, match="no rules"):
        parse_rules(wrong)
