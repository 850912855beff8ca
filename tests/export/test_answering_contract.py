"""Clients are told the contract of the version that answers."""

import json
from dataclasses import replace
from pathlib import Path

from clipserve_export.repository import read_config, read_specs
from clipserve_export.specs import SPECS
from clipserve_export.versions import answering_contract
from tests.export.conftest import MOTION


def test_a_version_that_is_staged_behind_another_does_not_speak_for_it(repository: Path) -> None:
    staged = replace(MOTION.contract, weights_source="file (new.pt)")
    assert answering_contract(repository, MOTION, "1", 2, staged) == MOTION.contract
    assert answering_contract(repository, MOTION, "latest:1", 2, staged) == staged
    assert answering_contract(repository, MOTION, "1", 1, staged) == staged


def test_a_repository_tells_the_contract_of_its_weights(repository: Path) -> None:
    told = json.loads(read_config(repository, "motion").parameters["contract"].string_value)
    assert told == json.loads(MOTION.contract.to_json())
    assert list(read_specs(repository)) == list(SPECS)
