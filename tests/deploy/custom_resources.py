"""JSON Schemas of custom resources: KServe's from its Python package, others from the definitions of a cluster."""

import ast
import copy
import re
import zipfile
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.helm import ROOT, NoHelm, Object, download

KSERVE = "kserve==0.21.0"
CACHE = ROOT / ".cache" / "kserve"
# CustomResourceDefinitions to validate against, as files: kubectl get crd -o yaml > .cache/crds/cluster.yaml
DEFINITIONS = ROOT / ".cache" / "crds"
PLAIN = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
COLLECTION = re.compile(r"(?P<kind>list|dict)[\[(](?:str, )?(?P<of>.+)[\])]")

Schema = dict[str, Any]


class KServeTypes:
    """The fields of KServe's types, as its published package has them. Raises NoHelm where it is not to be had."""

    def __init__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        wheels = list(CACHE.glob("*.whl"))
        with zipfile.ZipFile(wheels[0] if wheels else download(KSERVE, CACHE)) as wheel:
            files = [name for name in wheel.namelist() if name.startswith("kserve/models/")]
            texts = [wheel.read(name).decode() for name in files]
        self._schemas: dict[str, Schema] = {}
        self._texts = {found[1]: text for text in texts if (found := re.search(r"^class (\w+)", text, re.MULTILINE))}

    def schema(self, name: str) -> Schema:
        """Of one type: its fields and no others, down to the types of Kubernetes."""
        if name not in self._schemas:
            types, names = self._read(name)
            fields = {names[field]: self._schema_of(kind) for field, kind in types.items()}
            self._schemas[name] = {"type": "object", "additionalProperties": False, "properties": fields}
        return self._schemas[name]

    def fields(self, name: str) -> set[str]:
        """The names of a type's fields."""
        return set(self._read(name)[1].values())

    def _schema_of(self, kind: str) -> Schema:
        if kind in PLAIN:
            return {"type": PLAIN[kind]}
        if found := COLLECTION.fullmatch(kind):
            inner = self._schema_of(found["of"])
            return {"type": "array", "items": inner} if found["kind"] == "list" else {"additionalProperties": inner}
        # Its quantities are numbers or text, and its package has no class for some types.
        return self.schema(kind) if kind in self._texts and kind != "V1beta1MetricQuantity" else {}

    def _read(self, name: str) -> tuple[dict[str, str], dict[str, str]]:
        tree = ast.parse(self._texts[name])
        (kind,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
        values = {
            target.id: ast.literal_eval(node.value)
            for node in kind.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        return values["openapi_types"], values["attribute_map"]


def read_definitions(folder: Path = DEFINITIONS) -> dict[tuple[str, str], Schema]:
    """The schema of each apiVersion and kind that the files define, which refuses unknown fields."""
    schemas = {}
    for path in sorted(folder.glob("*.y*ml")):
        for document in yaml.load_all(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            for item in (document or {}).get("items", [document]):
                if item and item["kind"] == "CustomResourceDefinition":
                    spec = item["spec"]
                    for version in spec["versions"]:
                        key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                        schemas[key] = make_strict(version["schema"]["openAPIV3Schema"])
    return schemas


def make_strict(schema: Schema) -> Schema:
    """As an API server validates with fieldValidation=Strict."""
    strict = copy.copy(schema)
    if strict.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    if "properties" in strict:
        strict["properties"] = {name: make_strict(inner) for name, inner in strict["properties"].items()}
        if not strict.get("x-kubernetes-preserve-unknown-fields"):
            strict["additionalProperties"] = False
    if isinstance(strict.get("additionalProperties"), dict):
        strict["additionalProperties"] = make_strict(strict["additionalProperties"])
    if "items" in strict:
        strict["items"] = make_strict(strict["items"])
    if strict.pop("nullable", False) and "type" in strict:
        strict["type"] = [strict["type"], "null"]
    return strict


def fit_for_validation(item: Object) -> Object:
    """Without what the schema of a definition leaves to the API server."""
    return {key: value for key, value in item.items() if key != "metadata"} | {"metadata": {}}


__all__ = ["DEFINITIONS", "KServeTypes", "NoHelm", "fit_for_validation", "read_definitions"]
