"""Judges documents by the schemas of an OpenAPI file, after the file itself.

    check_openapi.py FILE < CASES

CASES is a JSON list of [name of a schema, document]; the answer is a JSON list of what is wrong with each, null if
nothing is.
"""

import json
import sys

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        contract = yaml.safe_load(file)
    validate(contract)
    verdicts = []
    for schema, document in json.load(sys.stdin):
        # References lead into the whole file.
        whole = {**contract, "$ref": f"#/components/schemas/{schema}"}
        validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
        verdicts.append(next((error.message for error in validator.iter_errors(document)), None))
    json.dump(verdicts, sys.stdout)


if __name__ == "__main__":
    main()
