"""The whole corpus of cases, by name. Data alone; what the library stored for each is in raw_items.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from onetable import cases_fields as fields
from onetable import cases_items as items
from onetable import cases_types as types
from onetable.case import Case, all_of

CASES: Final[Mapping[str, Case]] = all_of(
    types.types(),
    types.dates(),
    types.numbers_and_texts(),
    types.sets(),
    types.binaries(),
    types.nested(),
    fields.templates(),
    fields.defaults(),
    fields.generated(),
    fields.checks(),
    fields.nulls(),
    fields.mapping(),
    fields.schemas(),
    fields.unique(),
    items.verbs(),
    items.contexts(),
    items.stamps(),
    items.indexes(),
    items.encoded(),
    items.other_properties(),
    items.order(),
)
