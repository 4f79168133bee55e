"""What a schema may not say: each mistake is refused at its place, under its key, with a hint; all of them at once.

Each case replaces one piece of a good schema, marked in the text by its line, and names the one problem that follows.
"""

from __future__ import annotations

import pytest

from agent.protocol.schema import InputError, Problem, Schema

GOOD = """{
format: 'onetable:1.1.0',
version: '0.0.1',
indexes: {primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk', project: 'all'}},
params: {typeField: '_type', timestamps: true},
process: {
Fault: {enable: 'both', sync: 'up'},
Rule: {sync: 'down'},
Note: {sync: 'both'},
},
models: {
Fault: {
pk: {type: 'string', value: 'device#${deviceId}'},
sk: {type: 'string', value: 'fault#${id}'},
deviceId: {type: 'string', required: true},
id: {type: 'string', generate: 'ulid'},
code: {type: 'number'},
text: {type: 'string'},
gs1pk: {type: 'string', value: 'code#${code}'},
at: {type: 'date'},
expires: {type: 'date', ttl: true},
},
Rule: {
pk: {type: 'string', value: 'account#${accountId}'},
sk: {type: 'string', value: 'rule#${id}'},
id: {type: 'string'},
limits: {type: 'object', schema: {low: {type: 'number'}}},
list: {type: 'array', items: {type: 'string'}},
},
Note: {
pk: {type: 'string', value: 'device#${deviceId}'},
sk: {type: 'string', value: 'note#${id}'},
id: {type: 'string'},
},
},
}
"""


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        Schema.parse(text, "s.json5")
    return caught.value.problems


def test_the_good_schema_is_good() -> None:
    assert list(Schema.parse(GOOD, "s.json5").models) == ["Fault", "Rule", "Note"]


# (what stands in the good schema, what replaces it, line:column key, part of the message, part of the hint)
CASES = [
    # the top
    ("version: '0.0.1',", "", "1:1 version", "has no 'version'", ""),
    ("version: '0.0.1'", "version: 1", "3:10 version", "expected a text, found a number", ""),
    ("version: '0.0.1'", "version: ''", "3:10 version", "an empty text", ""),
    ("version: '0.0.1'", "version: '1', verson: '2'", "3:15 verson", "unknown key", "did you mean 'version'?"),
    ("format: 'onetable:1.1.0'", "format: 'onetable:9'", "2:9 format", "expected one of onetable:1.1.0", ""),
    ("version: '0.0.1'", "version: '0', version: '1'", "3:15 version", "comes twice, first in line 3", "remove one"),
    ("primary: {hash: 'pk', sort: 'sk'}", "main: {hash: 'pk'}", "4:10 indexes", "has no 'primary'", "hash: 'pk'"),
    ("hash: 'pk', sort: 'sk'}", "hash: 'pk'}", "4:11 indexes.primary", "has no 'sort'", "sort: 'sk'"),
    ("hash: 'pk', sort: 'sk'}", "hash: 'PK', sort: 'sk'}", "4:27 indexes.primary.hash", "other names", "write 'pk'"),
    ("project: 'all'", "project: 'some'", "4:91 indexes.gs1.project", "expected one of all, keys", ""),
    ("project: 'all'", "projekt: 'all'", "4:82 indexes.gs1.projekt", "unknown key", "did you mean 'project'?"),
    ("timestamps: true", "timestamps: 1", "5:42 params.timestamps", "expected one of true, false, create, update", ""),
    ("timestamps: true", "isodates: true", "5:30 params.isodates", "unknown key", "did you mean 'isoDates'?"),
    ("timestamps: true", "isoDates: 'yes'", "5:40 params.isoDates", "expected true or false, found a text", ""),
    ("typeField: '_type'", "typeField: '_op'", "5:21 params.typeField", "cannot be this attribute's name", ""),
    ("typeField: '_type'", "typeField: 'created'", "5:1 params", "must be three names", ""),
    # process
    ("Rule: {sync", "Rul: {sync", "8:1 process.Rul", "there is no model 'Rul'", "did you mean 'Rule'?"),
    ("enable: 'both'", "enable: 'boht'", "7:17 process.Fault.enable", "found 'boht'", "did you mean 'both'?"),
    ("enable: 'both'", "enabel: 'both'", "7:9 process.Fault.enabel", "unknown key", "did you mean 'enable'?"),
    (
        "enable: 'both'",
        "enable: 'device'",
        "7:33 process.Fault.sync",
        "cannot sync: enable is 'device'",
        "leave sync out",
    ),
    ("sync: 'both'}", "sync: 'both', conflict: 'last'}", "9:32 process.Note.conflict", "one of latest", "'latest'?"),
    ("sync: 'up'}", "sync: 'up', conflict: 'cloud'}", "7:47 process.Fault.conflict", "goes with sync 'both'", "leave"),
    ("sync: 'both'}", "sync: 'both', mem: true}", "9:27 process.Note.mem", "goes with sync 'down'", "leave"),
    ("sync: 'both'}", "sync: 'both', orphans: 'keep'}", "9:31 process.Note.orphans", "goes with sync 'up'", "leave"),
    ("sync: 'down'}", "sync: 'down', period: -1}", "8:30 process.Rule.period", "not negative, found -1", ""),
    ("sync: 'down'}", "sync: 'down', period: '1s'}", "8:30 process.Rule.period", "found a text", ""),
    ("sync: 'down'}", "sync: 'down', period: Infinity}", "8:30 process.Rule.period", "found inf", ""),
    ("timestamps: true", "timestamps: 'create'", "30:1 models.Note", "needs an 'updated' stamp", "timestamps: true"),
    # keys
    (
        "'device#${deviceId}'},\nsk: {type: 'string', value: 'fault#",
        "'device#${id}'},\nsk: {type: 'string', value: 'fault#",
        "13:29 models.Fault.pk.value",
        "'device#${id}': a synced model's hash key",
        "${id} belongs in the sort key",
    ),
    (
        "'device#${deviceId}'},\nsk: {type: 'string', value: 'fault#",
        "'x#${accountId}'},\nsk: {type: 'string', value: 'fault#",
        "13:29 models.Fault.pk.value",
        "belong to all devices of an account",
        "sync 'down'",
    ),
    (
        "'device#${deviceId}'},\nsk: {type: 'string', value: 'note#",
        "'x#'},\nsk: {type: 'string', value: 'note#",
        "31:29 models.Note.pk.value",
        "belong to every device",
        "sync 'down'",
    ),
    (
        "account#${accountId}",
        "a#${accountId}-${deviceId}",
        "24:29 models.Rule.pk.value",
        "where ${accountId} ends",
        "put '#'",
    ),
    ("'rule#${id}'", "'${id}'", "25:29 models.Rule.sk.value", "begins with a fixed prefix", "'rule#${id}'"),
    ("'rule#${id}'", "'rule#${deviceId}'", "25:29 models.Rule.sk.value", "where ${deviceId} ends", "put '#'"),
    (
        "'rule#${id}'",
        "'rule#${idd}'",
        "25:29 models.Rule.sk.value",
        "'${idd}' is no field of Rule",
        "did you mean 'id'?",
    ),
    ("'rule#${id}'", "'rule#${limits}'", "25:29 models.Rule.sk.value", "needs a path into it", ""),
    ("'rule#${id}'", "'rule#${limits.lo}'", "25:29 models.Rule.sk.value", "has no field 'lo'", "did you mean 'low'?"),
    ("'rule#${id}'", "'rule#${list}'", "25:29 models.Rule.sk.value", "its type is 'array'", ""),
    ("'rule#${id}'", "'rule#${updated}'", "25:29 models.Rule.sk.value", "cannot be used in a template", ""),
    ("'rule#${id}'", "'rule#${sk}'", "25:29 models.Rule.sk.value", "goes round in a circle", ""),
    ("'rule#${id}'", "'rule#${id'", "25:29 models.Rule.sk.value", "without its '}'", "${name}"),
    ("'rule#${id}'", "'rule#${id:6}'", "25:29 models.Rule.sk.value", "padding", "${name:6:0}"),
    ("'rule#${id}'", "''", "25:29 models.Rule.sk.value", "is empty", ""),
    ("'rule#${id}'", "'_fleet#${id}'", "25:29 models.Rule.sk.value", "Fleet's or the library's own", ""),
    (", value: 'rule#${id}'", "", "25:1 models.Rule.sk", "needs a template for 'sk'", ""),
    ("sk: {type: 'string', value: 'rule#${id}'},\n", "", "23:1 models.Rule", "has no 'sk'", "both key fields"),
    ("'note#${id}'", "'fault#${id}'", "32:29 models.Note.sk.value", "keys of Note and Fault overlap", "'note#'"),
    ("'note#${id}'", "'fault#old#${id}'", "32:29 models.Note.sk.value", "keys of Note and Fault overlap", "'note#'"),
    (
        "value: 'rule#${id}'",
        "value: 'rule#${id}', default: 'x'",
        "25:52 models.Rule.sk.default",
        "does not go on a key",
        "",
    ),
    # fields
    (
        "{type: 'number'},\ntext",
        "{typ: 'number'},\ntext",
        "17:8 models.Fault.code.typ",
        "unknown key",
        "did you mean 'type'?",
    ),
    ("code: {type: 'number'}", "code: 'number'", "17:7 models.Fault.code", "expected an object, found a text", ""),
    ("{type: 'number'},\ntext", "{type: 'nubmer'},\ntext", "17:14 models.Fault.code.type", "unknown type", "'number'?"),
    (
        "{type: 'number'},\ntext",
        "{type: 'Set'},\ntext",
        "19:32 models.Fault.gs1pk.value",
        "its type is 'set'",
        "",
    ),
    ("at: {type: 'date'}", "at: {type: 'date\\0'}", "20:12 models.Fault.at.type", "unknown type", "'date'?"),
    ("text: {type: 'string'}", "'a.b': {type: 'string'}", "18:1 models.Fault.a.b", "cannot be a field's name", ""),
    ("text: {type: 'string'}", "_op: {type: 'string'}", "18:1 models.Fault._op", "cannot be a field's name", ""),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', required: 1}",
        "18:34 models.Fault.text.required",
        "true or false",
        "",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', crypt: true}",
        "18:31 models.Fault.text.crypt",
        "not supported",
        "clear",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'array', unique: true}",
        "18:31 models.Fault.text.unique",
        "does not go with the type 'array'",
        "",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', scope: 'x'}",
        "18:31 models.Fault.text.scope",
        "with 'unique'",
        "",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', encode: 'sk'}",
        "18:32 models.Fault.text.encode",
        "short form",
        "['sk'",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', encode: ['sk', '#', 1]}",
        "18:33 models.Fault.text.encode",
        "'fault#${id}' does not use '${text}'",
        "",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', map: 'a.b.c'}",
        "18:29 models.Fault.text.map",
        "'attribute.member'",
        "",
    ),
    ("text: {type: 'string'}", "text: {type: 'string', map: 'sk'}", "18:29 models.Fault.text.map", "'sk' is a key", ""),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', map: 'code'}",
        "18:7 models.Fault.text",
        "'code' belongs to",
        "",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', map: '_type'}",
        "18:7 models.Fault.text",
        "belongs to the library",
        "",
    ),
    ("text: {type: 'string'}", "text: {type: 'string', map: '_op'}", "18:29 models.Fault.text.map", "Fleet's own", ""),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', enum: []}",
        "18:30 models.Fault.text.enum",
        "a list of values",
        "",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', enum: ['a', 1]}",
        "18:36 models.Fault.text.enum",
        "a string",
        "",
    ),
    ("{type: 'date'}", "{type: 'date', enum: ['a']}", "20:26 models.Fault.at.enum", "strings and numbers", ""),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', validate: '/(/'}",
        "18:34 models.Fault.text.validate",
        "no regular",
        "",
    ),
    (
        "{type: 'number'},\ntext",
        "{type: 'number', validate: 'a'},\ntext",
        "17:34 models.Fault.code.validate",
        "strings",
        "",
    ),
    (
        "generate: 'ulid'",
        "generate: 'ulidd'",
        "16:32 models.Fault.id.generate",
        "expected ulid",
        "did you mean 'ulid'?",
    ),
    ("generate: 'ulid'", "generate: 'uid(0)'", "16:32 models.Fault.id.generate", "uid(N) with N from 1 to 99", ""),
    (
        "{type: 'number'},\ntext",
        "{type: 'number', generate: 'uid'},\ntext",
        "17:34 models.Fault.code.generate",
        "string",
        "",
    ),
    (
        "{type: 'number'},\ntext",
        "{type: 'number', default: 'x'},\ntext",
        "17:33 models.Fault.code.default",
        "a number",
        "",
    ),
    (
        "{type: 'number'},\ntext",
        "{type: 'number', default: 1e999},\ntext",
        "17:33 models.Fault.code.default",
        "range",
        "",
    ),
    ("{type: 'date'}", "{type: 'date', default: 'now'}", "20:29 models.Fault.at.default", "does not fit", ""),
    (
        "at: {type: 'date'}",
        "at: {type: 'date', map: 'x', ttl: true}",
        "21:30 models.Fault.expires.ttl",
        "a second ttl",
        "map: 'x'",
    ),
    ("{type: 'number'},\ntext", "{type: 'number', ttl: true},\ntext", "17:29 models.Fault.code.ttl", "only a date", ""),
    (
        "{type: 'number'},\ntext",
        "{type: 'number', schema: {}},\ntext",
        "17:32 models.Fault.code.schema",
        "with objects",
        "",
    ),
    (
        "{type: 'number'},\ntext",
        "{type: 'number', items: {type: 'date'}},\ntext",
        "17:31 models.Fault.code.items",
        "arrays",
        "",
    ),
    ("low: {type: 'number'}", "low: {type: 'numbr'}", "27:47 models.Rule.limits.low.type", "unknown type", "'number'?"),
    (
        "low: {type: 'number'}",
        "low: {type: 'string', value: '${id}'}",
        "27:64 models.Rule.limits.low.value",
        "'${id}' is no field of Rule.limits",
        "",
    ),
    ("items: {type: 'string'}", "items: {typ: 'string'}", "28:31 models.Rule.list.items.typ", "unknown key", "'type'?"),
    ("value: 'code#${code}'", "value: 3", "19:32 models.Fault.gs1pk.value", "expected a template", ""),
    ("gs1pk: {type: 'string'", "gs1pk: {type: 'number'", "19:32 models.Fault.gs1pk.value", "gives a string", ""),
    ("text: {type: 'string'}", "updated: {type: 'number'}", "18:10 models.Fault.updated", "is stamped", ""),
    ("text: {type: 'string'}", "_type: {type: 'number'}", "18:8 models.Fault._type", "holds the model's name", ""),
    # indexes, packed and encoded fields, unique values
    ("project: 'all'", "project: ['a', 3]", "4:97 indexes.gs1.project", "the name of an attribute", ""),
    (
        "gs1: {hash: 'gs1pk', sort: 'gs1sk', project: 'all'}",
        "gs1: {hash: 'gs1pk', type: 'local', sort: 'x'}",
        "4:58 indexes.gs1.hash",
        "the table's own hash key",
        "write 'pk'",
    ),
    (
        "gs1: {hash: 'gs1pk', sort: 'gs1sk', project: 'all'}",
        "gs1: {type: 'local'}",
        "4:46 indexes.gs1",
        "has no 'sort'",
        "another order",
    ),
    ("sort: 'gs1sk'", "sort: 'gs1pk'", "4:73 indexes.gs1.sort", "the same attribute", ""),
    (
        "at: {type: 'date'}",
        "gs1sk: {type: 'boolean'}",
        "20:15 models.Fault.gs1sk.type",
        "the key of an index: the type cannot be 'boolean'",
        "string, number",
    ),
    (
        "at: {type: 'date'}",
        "at: {type: 'date', map: 'gs1sk.x'}",
        "20:25 models.Fault.at.map",
        "cannot be an object",
        "",
    ),
    ("at: {type: 'date'}", "at: {type: 'date', map: '.b'}", "20:25 models.Fault.at.map", "'attribute.member'", ""),
    ("at: {type: 'date'}", "at: {type: 'date', map: 'sk.b'}", "20:25 models.Fault.at.map", "a key keeps its name", ""),
    ("at: {type: 'date'}", "at: {type: 'date', map: '_op.b'}", "20:25 models.Fault.at.map", "Fleet's own", ""),
    ("at: {type: 'date'}", "at: {type: 'date', map: 'a.$SS'}", "20:25 models.Fault.at.map", "a packed member", ""),
    (
        "at: {type: 'date'}",
        "at: {type: 'date', map: 'code.x'}",
        "17:7 models.Fault.code",
        "belongs to the field 'at'",
        "",
    ),
    ("at: {type: 'date'}", "at: {type: 'date', map: '_type.x'}", "20:5 models.Fault.at", "belongs to the library", ""),
    (
        "at: {type: 'date'}",
        "at: {type: 'date', map: 'm.x'}, b: {type: 'date', map: 'm.x'}",
        "20:36 models.Fault.b",
        "'m.x' belongs to the field 'at'",
        "",
    ),
    (
        "expires: {type: 'date', ttl: true}",
        "expires: {type: 'date', ttl: true, map: 'm.x'}",
        "21:41 models.Fault.expires.map",
        "needs an attribute of its own",
        "",
    ),
    (
        "low: {type: 'number'}",
        "low: {type: 'number', map: 'm.x'}",
        "27:62 models.Rule.limits.low.map",
        "only fields at the top",
        "",
    ),
    (
        "low: {type: 'number'}",
        "low: {type: 'number', map: '$N'}",
        "27:62 models.Rule.limits.low.map",
        "'$N' cannot be the name",
        "",
    ),
    ("low: {type: 'number'}", "$B: {type: 'number'}", "27:46 models.Rule.limits.$B", "'$B' cannot be the name", ""),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'string', encode: ['sk', '#']}",
        "16:30 models.Fault.id.encode",
        "the number of a part",
        "['sk', '#', 1]",
    ),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'string', encode: ['sk', '', 1]}",
        "16:30 models.Fault.id.encode",
        "the number of a part",
        "['sk', '#', 1]",
    ),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'string', encode: ['sk', '#', 0]}",
        "16:42 models.Fault.id.encode",
        "part 0 of 'fault#${id}' is not '${id}'",
        "['sk', '#', 1]",
    ),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'string', encode: ['sk', ':', 0]}",
        "16:37 models.Fault.id.encode",
        "no ':' parts '${id}' from",
        "",
    ),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'string', encode: ['sq', '#', 1]}",
        "16:31 models.Fault.id.encode",
        "'sq' is no field that holds a text",
        "known: deviceId, text",
    ),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'string', encode: ['at', '#', 1]}",
        "16:31 models.Fault.id.encode",
        "'at' is no field that holds a text",
        "",
    ),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'boolean', encode: ['sk', '#', 1]}",
        "16:31 models.Fault.id.encode",
        "gives a text or a number",
        "",
    ),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'string', unique: true, encode: ['sk', '#', 1]}",
        "16:30 models.Fault.id.unique",
        "is not stored",
        "",
    ),
    (
        "id: {type: 'string', generate: 'ulid'}",
        "id: {type: 'string', map: 'x', encode: ['sk', '#', 1]}",
        "16:27 models.Fault.id.map",
        "does not go with 'encode'",
        "",
    ),
    (
        "low: {type: 'number'}",
        "low: {type: 'number', encode: ['sk', '#', 1]}",
        "27:65 models.Rule.limits.low.encode",
        "top fields only",
        "",
    ),
    (
        "'fault#${id}'}",
        "'fault#${id}', encode: ['pk', '#', 1]}",
        "14:52 models.Fault.sk.encode",
        "does not go on a key",
        "",
    ),
    (
        "low: {type: 'number'}",
        "low: {type: 'number', unique: true}",
        "27:65 models.Rule.limits.low.unique",
        "top fields only",
        "",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', unique: true, scope: 3}",
        "18:45 models.Fault.text.scope",
        "expected a template",
        "",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', unique: true, scope: '${accountId}'}",
        "18:45 models.Fault.text.scope",
        "no field of Fault",
        "a field for it",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', unique: true, scope: '${cod}'}",
        "18:45 models.Fault.text.scope",
        "no field of Fault",
        "'code'?",
    ),
    (
        "text: {type: 'string'}",
        "text: {type: 'string', unique: true, scope: '${code'}",
        "18:45 models.Fault.text.scope",
        "without its '}'",
        "",
    ),
    ("'fault#${id}'}", "'fault#${id}', unique: true}", "14:52 models.Fault.sk.unique", "is unique already", "leave"),
    (
        "low: {type: 'number'}",
        "low: {type: 'date', ttl: true}",
        "27:60 models.Rule.limits.low.ttl",
        "only a date at the top",
        "",
    ),
    (
        "low: {type: 'number'}",
        "low: {type: 'number'}, b: {type: 'string', map: 'low'}",
        "27:61 models.Rule.limits.b",
        "'low' belongs to the field 'low'",
        "",
    ),
    (
        "items: {type: 'string'}",
        "items: {type: 'string', generate: 'uid'}",
        "28:57 models.Rule.list.items.generate",
        "is given",
        "",
    ),
    (
        "items: {type: 'string'}",
        "items: {type: 'string', crypt: true}",
        "28:54 models.Rule.list.items.crypt",
        "not supported",
        "in clear",
    ),
    ("at: {type: 'date'}", "at: {type: 'set', default: []}", "20:28 models.Fault.at.default", "an empty set", ""),
    ("at: {type: 'date'}", "at: {type: 'Buffer', default: '?'}", "20:31 models.Fault.at.default", "no base64 text", ""),
    (
        "at: {type: 'date'}",
        "at: {type: 'binary', enum: ['a']}",
        "20:28 models.Fault.at.enum",
        "strings and numbers",
        "",
    ),
    (
        "text: {type: 'string'}",
        "updated: {type: 'date', map: 'a.b'}",
        "18:10 models.Fault.updated",
        "an attribute of its own",
        "",
    ),
    ("Note: {\npk", "_Note: {\npk", "30:1 models._Note", "cannot be a model's name", "library's own"),
    ("models: {\nFault", "models: {\nEmpty: 3,\nFault", "12:8 models.Empty", "expected an object", ""),
]


@pytest.mark.parametrize(("old", "new", "place", "message", "hint"), CASES)
def test_a_mistake_is_refused_at_its_place(old: str, new: str, place: str, message: str, hint: str) -> None:
    assert GOOD.count(old) == 1  # else the case would not test what it says
    text = GOOD.replace(old, new)
    problems = problems_of(text)
    found = {f"{p.line}:{p.column} {p.key}": p for p in problems}
    assert place in found, "\n".join(map(str, problems))
    assert message in found[place].message
    assert hint in found[place].hint
    assert found[place].file == "s.json5"


def test_a_table_wide_iso_date_cannot_be_switched_off_for_a_field() -> None:
    text = GOOD.replace("timestamps: true", "isoDates: true").replace(
        "at: {type: 'date'", "at: {type: 'date', isoDates: false"
    )
    (problem,) = problems_of(text)
    assert (problem.line, problem.key) == (20, "models.Fault.at.isoDates")


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    text = GOOD
    slips = [
        ("version: '0.0.1'", "version: 7"), ("enable: 'both'", "enable: 'boht'"), ("generate: 'ulid'", "generate: 'x'"),
        ("value: 'code#${code}'", "value: 3"), ("'rule#${id}'", "'${id}'"), ("low: {type: 'number'", "low: {type: 'n'"),
    ]  # fmt: skip
    for old, new in slips:
        text = text.replace(old, new, 1)
    problems = problems_of(text)
    assert [p.line for p in problems] == [3, 7, 16, 19, 25, 27]
    assert str(problems[0]).startswith("s.json5:3:10: version: ")


def test_keys_overlap_also_when_their_templates_differ() -> None:
    text = GOOD.replace("'account#${accountId}'", "'device#${accountId}'").replace("'rule#${id}'", "'fault#${id}'")
    (problem,) = problems_of(text)
    assert "keys of Rule and Fault overlap" in problem.message


def test_a_model_that_does_not_sync_may_not_hide_behind_the_prefix_of_one_that_does() -> None:
    text = GOOD.replace("Note: {sync: 'both'},\n", "")
    (problem,) = problems_of(text.replace("'note#${id}'", "'fault#${id}'"))
    assert "keys of Note and Fault overlap" in problem.message
    Schema.parse(text.replace("'note#${id}'", "'fault#note#${id}'"), "s")  # the longer prefix tells them apart


def test_a_model_that_does_not_sync_may_have_any_keys() -> None:
    for pk, sk in (("'${id}'", "'${id}'"), ("'a'", "'b'")):
        text = (
            GOOD.replace("Rule: {sync: 'down'},\n", "")
            .replace("'account#${accountId}'", pk)
            .replace("'rule#${id}'", sk)
        )
        assert Schema.parse(text, "s").models["Rule"].sync == "none"
    text = GOOD.replace("Rule: {sync: 'down'},\n", "").replace(", value: 'rule#${id}'", "")
    assert Schema.parse(text, "s").models["Rule"].sort_template == ""


def test_a_stamp_or_the_type_may_be_listed() -> None:
    listed = "updated: {type: 'date', required: true}, _type: {type: 'string'}"
    model = Schema.parse(GOOD.replace("text: {type: 'string'}", listed), "s").models["Fault"]
    assert "updated" in model.fields
    assert "_type" not in model.fields


def test_a_template_with_the_updated_stamp_cannot_use_what_only_the_key_tells() -> None:
    text = GOOD.replace("generate: 'ulid'", "encode: ['sk', '#', 1]").replace("'code#${code}'", "'${updated}#${id}'")
    (problem,) = problems_of(text)
    assert (problem.line, problem.key) == (19, "models.Fault.gs1pk.value")
    assert "cannot be in one template" in problem.message
    Schema.parse(text.replace("${updated}", "${created}"), "s")


def test_an_encoded_field_may_take_any_part_that_is_its_own() -> None:
    for template, part in (("fault#${code}#${id}", 2), ("fault##${id}#${code}", 2), ("fault#${id}", 1)):
        text = GOOD.replace("'fault#${id}'", f"'{template}'").replace(
            "generate: 'ulid'", f"encode: ['sk', '#', {part}]"
        )
        Schema.parse(text, "s")
