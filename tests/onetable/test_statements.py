"""What Fleet holds to be true of the JavaScript library, one test for each statement, against what was captured of it.

The first part is how values are stored, the second the properties of fields, the third where the library does not do
what one would expect, so that whoever writes the engine need not find it out again. No Node is needed: test_library.py
shows that the file is what the library does.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from onetable.capture import expected, states
from onetable.case import START_MS, STEP_MS, WHEN
from onetable.cases_types import VALUES
from onetable.corpus import CASES
from onetable.values import Raw, from_tagged, to_tagged

EXPECTED: Final = expected()
PLAIN: Final = [name for name in CASES if name.startswith("type/") and "packed" not in name]
BINARY: Final = ("buffer", "binary", "arraybuffer")
WHEN_MS: Final = "1770091506789"
WHEN_S: Final = "1770091507"  # rounded up
WHEN_ISO: Final = "2026-02-03T04:05:06.789Z"


def stored(name: str, step: int = 1, item: str = "1") -> Raw:
    """What the item holds after a step (the first is 1), without its keys; `thing#1` is item "1"."""
    items = list(states(EXPECTED[name]))[step - 1]
    (found,) = [raw for raw in items if raw["sk"]["S"] in (f"thing#{item}", item)]
    return found


def refused(name: str, step: int = 1) -> str:
    """The library's error in a step that stored nothing; "" when the step was fine."""
    record = EXPECTED[name]["steps"][step - 1]
    assert "items" not in record or "error" not in record
    error: str = record.get("error", "")
    return error


def read(name: str) -> list[dict[str, Any]]:
    """What the library reads of each item of the model, at the end."""
    found: list[dict[str, Any]] = from_tagged(EXPECTED[name]["read"])
    return found


def answer(name: str, step: int) -> Any:
    return from_tagged(EXPECTED[name]["steps"][step - 1]["answer"])


def unique_items(name: str, step: int) -> list[str]:
    """The hash keys of the extra items of unique fields after a step."""
    items = list(states(EXPECTED[name]))[step - 1]
    return [item["pk"]["S"] for item in items if item["pk"]["S"].startswith("_unique#")]


# --- how values are stored -------------------------------------------------------------------------------------------


def test_a_string_is_s_a_number_n_and_a_boolean_bool() -> None:
    assert stored("type/string")["value"] == {"S": "text"}
    assert stored("type/number")["value"] == {"N": "7"}
    assert stored("type/boolean")["value"] == {"BOOL": True}
    assert stored("number/sum")["n"] == {"N": "0.30000000000000004"}
    assert stored("number/minus-zero")["n"] == {"N": "0"}


def test_an_empty_text_is_stored_as_it_is() -> None:
    assert stored("type/string", 2, "2")["value"] == {"S": ""}


def test_a_date_is_n_of_milliseconds() -> None:
    assert stored("date/ms")["at"] == {"N": WHEN_MS}
    assert stored("type/date", 6, "4")["value"] == {"N": "-1"}


def test_a_date_is_s_with_iso_dates_of_the_table_or_the_field() -> None:
    for name in ("date/iso", "date/ms-field-iso", "date/iso-field-iso"):
        assert stored(name)["at"] == {"S": WHEN_ISO}


def test_a_date_is_read_in_either_form() -> None:
    (props,) = read("date/found-in-the-other-form")
    assert props["at"] == props["iso"] == WHEN


def test_a_set_is_ss_ns_or_bs() -> None:
    assert stored("type/set")["value"] == {"SS": ["a", "b"]}
    assert stored("type/set", 2, "2")["value"] == {"NS": ["1", "2.5", "3"]}
    assert stored("type/set", 4, "3")["value"] == {"BS": ["AP8=", "eA=="]}


def test_an_empty_set_is_an_error() -> None:
    assert "non-empty set" in refused("set/empty")
    assert "non-empty set" in refused("set/emptied-by-update", 2)


@pytest.mark.parametrize("kind", BINARY)
def test_a_buffer_is_s_in_base64_and_a_byte_array_b(kind: str) -> None:
    assert stored(f"type/{kind}")["value"] == {"S": "AP8Q"}
    assert stored(f"binary/{kind}-from-bytes")["b"] == {"B": "AP8="}
    assert stored(f"binary/{kind}-empty")["b"] == {"S": ""}


@pytest.mark.parametrize("kind", BINARY)
def test_both_forms_of_bytes_are_read(kind: str) -> None:
    assert [props["b"] for props in read(f"binary/{kind}-found-in-both-forms")] == [b"\x00\xff", b"\x00\xff"]


def test_an_array_is_l_and_an_object_m() -> None:
    assert stored("type/array")["value"] == {"L": [{"N": "1"}, {"S": "a"}, {"BOOL": True}]}
    assert stored("type/object", 2, "2")["value"] == {"M": {}}


def test_an_object_without_a_schema_is_stored_as_it_is_nulls_too() -> None:
    assert stored("type/object", 3, "2")["value"] == {"M": {"a": {"NULL": True}, "b": {"L": [{"NULL": True}]}}}
    assert stored("verb/unknown-kept")["deep"] == {"M": {"a": {"NULL": True}}}


def test_dates_inside_follow_the_table_and_are_not_read_back_as_dates() -> None:
    assert stored("type/object")["value"]["M"]["when"] == {"N": WHEN_MS}
    assert stored("type/object-iso")["value"]["M"]["when"] == {"S": WHEN_ISO}
    assert read("type/object")[0]["value"]["when"] == int(WHEN_MS)
    assert read("type/object-iso")[0]["value"]["when"] == WHEN_ISO


def test_with_a_schema_unknown_names_are_dropped() -> None:
    assert stored("schema/unknown-dropped")["o"] == {"M": {"a": {"S": "1"}}}
    assert stored("schema/unknown-dropped", 2)["o"] == {"M": {"a": {"S": "2"}}}
    assert read("schema/unknown-not-read")[0]["o"] == {"a": "1"}


@pytest.mark.parametrize("name", PLAIN)
def test_null_is_absent_on_create_and_removed_on_update_or_null_with_nulls(name: str) -> None:
    attribute = "v" if "mapped" in name else "value"
    wanted = {"NULL": True} if "nulls" in name else None
    assert stored(name, 7, "5").get(attribute) == wanted
    assert attribute in stored(name, 8, "5")
    assert stored(name, 9, "5").get(attribute) == wanted
    assert attribute not in stored(name, 10, "6")  # never given


def test_unknown_fields_are_dropped_and_those_already_stored_kept() -> None:
    assert set(stored("verb/unknown-dropped", 2)) == {"pk", "sk", "_type", "deviceId", "id", "v", "w"}
    for step in (2, 3, 4):
        assert stored("verb/unknown-kept", step)["other"] == {"N": "5"}


def test_a_write_goes_from_nested_fields_over_context_defaults_and_ids_to_templates() -> None:
    assert stored("order/nested-before-templates")["t"] == {"S": "in"}
    assert stored("order/templates-after-context-defaults-and-generated")["t"] == {"S": "acc1#d#<uid(5)>"}


def test_checks_come_after_templates_and_nulls_and_before_types_are_converted() -> None:
    assert '"t"' in refused("template/validated", 2)
    assert refused("order/nulls-before-checks") == ""
    assert '"n"' in refused("order/checks-before-conversion")
    assert stored("order/templates-before-conversion")["t"] == {"S": WHEN_MS}


def test_stamps_go_over_what_the_caller_gave() -> None:
    item = stored("stamps/over-the-given", 1)
    assert item["created"] == item["updated"] == {"N": str(START_MS)}
    assert stored("stamps/over-the-given", 2)["updated"] == {"N": str(START_MS + STEP_MS)}


def test_an_upsert_keeps_created() -> None:
    item = stored("stamps/true-ms", 3)
    assert item["created"] == {"N": str(START_MS)}
    assert item["updated"] == {"N": str(START_MS + 2 * STEP_MS)}
    assert stored("stamps/true-iso", 3)["created"] == {"S": "2026-01-02T03:04:05.678Z"}


def test_the_type_field_holds_the_models_name() -> None:
    assert stored("verb/upsert-creates")["_type"] == {"S": "Thing"}
    assert stored("stamps/type-field")["kind"] == {"S": "Thing"}


def test_an_update_recomputes_the_templates_that_it_was_given_all_variables_of() -> None:
    assert stored("template/recomputed-when-all-given", 2)["t"] == {"S": "2#2"}
    assert stored("template/untouched-by-others", 2)["t"] == {"S": "1#1"}


def test_an_index_key_goes_stale_because_the_stored_item_is_not_read() -> None:
    assert stored("template/stale-when-some-given", 2)["t"] == {"S": "1#1"}
    item = stored("index/stale-after-removal", 2)
    assert "kind" not in item
    assert item["gs1pk"] == {"S": "kind#a"}


# --- properties of fields --------------------------------------------------------------------------------------------


def test_a_template_takes_dotted_paths_and_pads_left_without_cutting() -> None:
    assert stored("template/dotted")["t"] == {"S": "x#005"}
    assert stored("template/padded-zeros")["t"] == {"S": "000042"}
    assert stored("template/padded-long-pad")["t"] == {"S": "ababq"}
    assert stored("template/never-cut")["t"] == {"S": "123456"}


def test_a_template_with_an_unresolved_variable_is_absent_and_the_index_sparse() -> None:
    assert "t" not in stored("template/unresolved-is-absent")
    assert "t" not in stored("template/dotted-unresolved")
    assert "gs1pk" not in stored("index/sparse")
    assert answer("index/sparse", 3) == []


def test_a_find_begins_with_what_the_sort_key_has_before_the_first_unresolved_variable() -> None:
    assert [props["id"] for props in answer("find/part-of-sort-key", 4)] == ["1", "2"]
    assert [props["id"] for props in answer("find/begins-up-to-the-first-unresolved", 3)] == ["1", "2"]
    assert [props["id"] for props in answer("index/begins-with", 3)] == ["1"]


def test_a_given_value_wins_over_the_template() -> None:
    assert stored("template/given-value-wins")["t"] == {"S": "mine"}
    assert stored("template/given-value-wins", 2)["t"] == {"S": "z"}
    assert stored("verb/key-given", 2, "mine")["v"] == {"S": "1"}


def test_a_template_makes_a_field_hidden_unless_said_otherwise() -> None:
    assert "t" not in read("template/given-value-wins")[0]
    assert read("template/shown")[0]["t"] == "x"


def test_required_holds_after_defaults_and_templates_and_names_the_field() -> None:
    assert refused("default/required") == refused("template/required", 2) == refused("required/empty-text") == ""
    for name, step in (("required/missing", 1), ("required/missing", 2), ("required/removed", 2)):
        assert refused(name, step) == 'ValidationError: Validation Error in "Thing" for "v"'
    assert '"t"' in refused("template/required")


def test_a_default_is_set_on_create_but_not_over_null() -> None:
    assert stored("default/text")["v"] == {"S": "d"}
    assert stored("default/zero")["v"] == {"N": "0"}
    assert "v" not in stored("default/text", 2, "2")


def test_a_default_runs_over_what_is_stored_in_an_upsert() -> None:
    assert stored("default/upsert-over-stored", 2)["v"] == {"S": "d"}


def test_an_id_is_generated_only_without_value_and_default() -> None:
    assert stored("generate/ulid")["v"] == {"S": "<ulid>"}
    assert stored("generate/ulid", 2, "2")["v"] == {"S": "mine"}
    assert stored("generate/not-over-default")["v"] == {"S": "d"}
    assert "v" not in stored("generate/not-over-null")


def test_a_generated_id_fills_the_template_of_the_key() -> None:
    assert stored("generate/id", 1, "<ulid>")["id"] == {"S": "<ulid>"}


@pytest.mark.parametrize(
    "check", ["enum", "enum-number", "validate-slashes", "validate-flags", "validate-unanchored", "validate-plain"]
)
def test_enum_and_validate_refuse_what_does_not_fit(check: str) -> None:
    assert [bool(refused(f"check/{check}", step)) for step in (1, 2, 3, 4)] == [False, False, True, True]


def test_a_field_may_be_mapped_to_another_attribute() -> None:
    assert stored("type/string-mapped")["v"] == {"S": "text"}
    assert read("mapped/swapped")[0] == {"deviceId": "dev1", "id": "1", "a": "1", "b": "2"}


def test_several_fields_are_packed_into_one_attribute_all_of_them_together() -> None:
    assert stored("packed/all-together")["box"] == {"M": {"x": {"S": "1"}, "y": {"N": "2"}}}
    assert "Missing properties for mapped data field" in refused("packed/some")
    assert "Missing properties for mapped data field" in refused("packed/some", 3)
    assert "box" not in stored("packed/none")


def test_an_encoded_field_is_not_stored_but_read_from_its_part_of_another() -> None:
    assert "a" not in stored("encode/part-of-key", 1, "thing#x#1")
    assert answer("encode/part-of-key", 2)["a"] == answer("encode/part-of-key", 3)[0]["a"] == "x"


def test_the_short_form_of_encode_counts_variables_and_is_wrong_after_a_literal() -> None:
    assert read("encode/short-form")[0]["a"] == "x"
    assert read("encode/short-form-after-a-literal")[0]["a"] == "thing"


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("date/") and name.endswith("-ttl")])
def test_a_ttl_is_seconds_rounded_up_whatever_iso_dates_says(name: str) -> None:
    assert stored(name)["at"] == {"N": WHEN_S}


def test_a_field_cannot_switch_off_the_iso_dates_of_the_table() -> None:
    assert stored("date/iso-field-ms")["at"] == {"S": WHEN_ISO}


def test_nulls_of_the_field_win_over_the_tables() -> None:
    assert stored("nulls/dropped-field-kept")["v"] == {"NULL": True}
    assert "v" not in stored("nulls/kept-field-dropped")
    assert stored("nulls/dropped-field-kept", 3)["w"] == {"M": {"v": {"NULL": True}}}


def test_a_unique_field_has_an_extra_item_for_each_value_in_the_same_transaction() -> None:
    (item,) = [raw for raw in next(states(EXPECTED["unique/create"])) if raw["sk"]["S"] == "_unique#"]
    assert item == {"pk": {"S": "_unique#Thing#email#a"}, "sk": {"S": "_unique#"}, "_type": {"S": "_Unique"}}
    assert unique_items("unique/mapped", 1) == ["_unique#Thing#em#a"]
    assert "UniqueError" in refused("unique/taken", 2)
    assert len(list(states(EXPECTED["unique/taken"]))[1]) == 2  # nothing of the second create


def test_the_extra_item_follows_its_value() -> None:
    assert unique_items("unique/update", 2) == ["_unique#Thing#email#b"]
    assert unique_items("unique/update-same", 2) == ["_unique#Thing#email#a"]
    assert unique_items("unique/remove", 2) == unique_items("unique/null", 2) == []


def test_a_unique_value_may_have_a_scope() -> None:
    assert unique_items("unique/scoped", 2) == ["_unique#x#Thing#email#a", "_unique#y#Thing#email#a"]
    assert "UniqueError" in refused("unique/scoped", 3)


def test_a_nested_schema_converts_every_type() -> None:
    for kind, (first, _, _, fourth) in VALUES.items():
        if kind in ("object", "array"):
            continue
        name = f"nested/{kind}"
        assert stored(name)["o"]["M"]["value"] == stored(f"type/{kind}")["value"]
        assert stored(name, 3, "2")["o"]["M"] == {"m": stored(f"type/{kind}")["value"]}
        assert read(name)[0]["o"]["mine"] == from_tagged(to_tagged(fourth))
        assert read(name)[1]["o"] == {"mine": from_tagged(to_tagged(first))}


def test_partial_updates_leaves_and_else_the_object_is_replaced() -> None:
    for where in ("params", "field"):
        assert set(stored(f"schema/partial-by-{where}", 2)["o"]["M"]) == {"a", "b", "at", "deep"}
        assert stored(f"schema/whole-by-{where}", 2)["o"] == {"M": {"a": {"S": "9"}}}
    assert stored("schema/unknown-kept-by-partial", 2)["o"] == {"M": {"a": {"S": "2"}, "z": {"N": "1"}}}


def test_a_nested_object_is_partial_when_the_one_around_it_is() -> None:
    assert stored("schema/partial-by-field", 3)["o"]["M"]["deep"] == {"M": {"x": {"S": "8"}, "y": {"S": "4"}}}


def test_a_hidden_field_is_left_out_of_results() -> None:
    assert read("hidden/field")[0] == {"deviceId": "dev1", "id": "1", "w": "2"}
    assert read("schema/hidden-inside")[0]["o"] == {"b": "2"}


def test_an_encrypted_field_without_a_secret_is_refused() -> None:
    assert "No database secret" in refused("crypt/without-secret")


def test_the_properties_that_are_only_kept_change_nothing() -> None:
    keys = {"pk": "device#dev1", "sk": "thing#1", "_type": "Thing", "deviceId": "dev1", "id": "1"}
    assert stored("ignored/properties", 2) == {name: {"S": text} for name, text in {**keys, "v": "2"}.items()}


def test_timestamps_stamp_what_they_name() -> None:
    wanted = {"true": {"created", "updated"}, "create": {"created"}, "update": {"updated"}, "false": set()}
    for kept, names in wanted.items():
        assert {"created", "updated"} & set(stored(f"stamps/{kept}-ms")) == names
    assert {"made", "changed"} < set(stored("stamps/named"))


# --- what one would not expect ---------------------------------------------------------------------------------------


def test_a_default_is_also_read_where_nothing_is_stored() -> None:
    assert read("default/read-where-absent")[0]["v"] == "d"
    assert read("default/text")[1]["v"] == "d"  # created with null


def test_a_default_inside_a_schema_is_not_set_on_update_and_a_required_schema_is_made() -> None:
    assert stored("default/inside-schema-on-update", 2)["o"] == {"M": {"b": {"S": "y"}}}
    assert stored("default/required-schema-is-made")["o"] == {"M": {"a": {"S": "d"}}}


def test_an_upsert_neither_requires_nor_spares_what_a_create_would() -> None:
    assert refused("required/missing-in-upsert") == ""
    assert stored("generate/upsert-of-stored", 2)["v"] == {"S": "<ulid>"}


def test_an_upsert_stamps_created_just_when_it_should_not() -> None:
    assert "created" not in stored("stamps/create-upsert")
    assert "created" in stored("stamps/update-upsert")


def test_created_can_be_changed_by_an_update() -> None:
    assert stored("stamps/created-on-update", 2)["created"] != stored("stamps/created-on-update", 1)["created"]


def test_null_for_an_object_with_a_schema_is_an_error_unless_nulls_are_kept() -> None:
    assert refused("nulls/schema-object-dropped", 2) == refused("nulls/schema-object-dropped", 3) == "TypeError"
    assert stored("nulls/schema-object-kept", 2)["w"] == {"NULL": True}


@pytest.mark.parametrize("kind", BINARY)
def test_a_kept_null_in_a_binary_field_makes_the_item_unreadable(kind: str) -> None:
    name = f"type/{kind}-nulls"
    assert stored(name, 9, "5")["value"] == {"NULL": True}
    assert EXPECTED[name]["read"][4] == {"error": "ERR_INVALID_ARG_TYPE"}


@pytest.mark.parametrize("kind", BINARY)
def test_an_array_buffer_is_lost(kind: str) -> None:
    assert stored(f"binary/{kind}-from-arraybuffer")["b"] == {"S": "[object ArrayBuffer]"}


def test_bytes_inside_objects_and_arrays_are_b() -> None:
    assert stored("binary/in-object")["o"]["M"]["b"] == {"B": "AP8="}
    assert stored("binary/in-array")["a"]["L"] == [{"B": "AP8="}]


def test_an_array_given_for_a_set_is_stored_as_a_list() -> None:
    assert set(stored("set/from-array")["s"]) == set(stored("set/default")["s"]) == {"L"}


def test_the_element_type_of_an_array_is_not_looked_at() -> None:
    assert stored("array/of-dates-element-iso")["a"] == {"L": [{"N": WHEN_MS}]}
    assert read("array/of-dates-element-iso")[0]["a"] == [int(WHEN_MS)]


def test_an_array_with_a_schema_is_changed_element_by_element_when_partial() -> None:
    assert stored("schema/array-partial", 2)["a"]["L"] == [{"M": {"at": {"N": WHEN_MS}, "v": {"S": "2"}}}]


def test_packed_fields_cannot_be_removed() -> None:
    assert refused("packed/null", 2) == "ValidationException"
    assert "Missing properties" in refused("packed/null-for-some", 2)


def test_a_packed_object_with_a_schema_is_stored_but_not_read() -> None:
    assert stored("packed/schema")["box"]["M"]["x"] == {"M": {"v": {"S": "1"}}}
    assert read("packed/schema")[0]["a"] == {}


def test_an_update_of_a_field_mapped_to_the_name_of_another_changes_the_other() -> None:
    assert read("mapped/swapped-update")[0] == {"deviceId": "dev1", "id": "1", "a": "1", "b": "3"}


def test_a_partial_change_of_an_absent_object_is_an_error() -> None:
    assert refused("schema/partial-of-absent", 2) == refused("schema/partial-upsert-of-absent") == "ValidationException"


def test_a_date_in_a_template_has_the_form_of_the_templates_field() -> None:
    assert stored("template/date-field-iso-ms")["t"] == {"S": f"at#{WHEN_MS}"}
    assert stored("template/date-iso-template")["t"] == {"S": f"at#{WHEN_ISO}"}
    assert stored("template/date-ttl-ms")["t"] == {"S": f"at#{WHEN_MS}"}  # not seconds


def test_an_unresolved_scope_is_called_undefined_and_leaves_the_old_value_taken() -> None:
    assert unique_items("unique/scope-unresolved", 1) == ["_unique#undefined#Thing#email#a"]
    after = unique_items("unique/scope-unresolved-on-update", 2)
    assert after == ["_unique#undefined#Thing#email#b", "_unique#x#Thing#email#a"]


def test_an_encoded_number_is_read_as_a_text() -> None:
    assert answer("encode/number", 2)["n"] == "5"


def test_an_enum_refuses_a_kept_null_and_validate_does_not() -> None:
    assert refused("check/enum-kept-null", 2) != ""
    assert refused("check/validate-kept-null", 2) == ""


def test_a_whole_number_beyond_2_53_is_refused_and_read_as_a_bigint() -> None:
    assert "greater than Number.MAX_SAFE_INTEGER" in refused("number/huge")
    assert read("read/large-numbers")[0]["n"] == {"$bigint": "9007199254740993"}


def test_padding_may_lack_its_character() -> None:
    assert stored("template/padded-default-pad")["t"] == {"S": "000042"}


def test_an_update_leaves_the_type_alone_and_an_upsert_sets_it() -> None:
    assert "_type" not in stored("verb/update-of-untyped", 2)
    assert stored("verb/upsert-of-untyped", 2)["_type"] == {"S": "Thing"}


def test_the_context_wins_over_what_is_given() -> None:
    assert stored("context/wins")["accountId"] == stored("context/wins-on-update", 2)["accountId"] == {"S": "acc1"}
