"""Lines of JSON, as in JSONTestSuite: y are records, n are not, and i is what other parsers disagree about."""

from __future__ import annotations

from typing import NamedTuple


class Accepted(NamedTuple):
    """A line that is a record: an object, or a string, which is its prompt."""

    name: str
    line: bytes


class Refused(NamedTuple):
    """A line that is none: the character and the byte at fault, and our words for it; None where they are the
    parser's."""

    name: str
    line: bytes
    column: int
    byte: int
    reason: str | None = None


#: what any parser takes
Y = (
    Accepted("object empty", b"{}"),
    Accepted("object nested empty", b'{"a":{},"b":[]}'),
    Accepted("object many types", b'{"s":"t","i":1,"f":0.5,"t":true,"f2":false,"n":null,"l":[1,"2",[]]}'),
    Accepted("object empty key", b'{"":0}'),
    Accepted("object long key", b'{"' + b"k" * 500 + b'":1}'),
    Accepted("object escaped key", b'{"\\u0061\\n":1}'),
    Accepted("object nul in key", b'{"a\\u0000b":1}'),
    Accepted("object numeric keys order", b'{"2":1,"10":2,"1":3}'),
    Accepted("space around", b' \t{"a" : [ 1 , 2 ] } \t'),
    Accepted("cr as space", b'{"a":\r1}'),
    Accepted("string is the prompt", b'"a prompt"'),
    Accepted("string one space", b'" "'),
    Accepted("string escapes", b'{"a":"\\"\\\\\\/\\b\\f\\n\\r\\t"}'),
    Accepted("string unicode escape", b'{"a":"\\u00e9\\u20AC"}'),
    Accepted("string pair of surrogates", b'{"a":"\\ud83d\\ude00"}'),
    Accepted("string utf8 2 3 4", '{"a":"é€😀"}'.encode()),
    Accepted("string nul escape", b'{"a":"\\u0000"}'),
    Accepted("string del", b'{"a":"\x7f"}'),
    Accepted("string u2028", '{"a":"\u2028\u2029\u0085"}'.encode()),
    Accepted("string noncharacter", '{"a":"\uffff\ufdd0"}'.encode()),
    Accepted("string bom inside", '{"a":"\ufeffx"}'.encode()),
    Accepted("string escaped slash", b'{"a":"\\/"}'),
    Accepted("string ends with backslash", b'{"a":"\\\\"}'),
    Accepted("string looks like json", b'{"a":"{\\"b\\":[1]}"}'),
    Accepted("string combining", '{"a":"e\u0301\u202e"}'.encode()),
    Accepted("number zero", b'{"a":0}'),
    Accepted("number minus zero", b'{"a":-0}'),
    Accepted("number int", b'{"a":123}'),
    Accepted("number minus one", b'{"a":-1}'),
    Accepted("number fraction", b'{"a":1.25}'),
    Accepted("number exponents", b'{"a":[1e2,1E2,1e+2,1e-2,0e1,0.5e-1]}'),
    Accepted("number 2 53 plus 1", b'{"a":9007199254740993}'),
    Accepted("number i64", b'{"a":[9223372036854775807,-9223372036854775808]}'),
    Accepted("number u64", b'{"a":18446744073709551615}'),
    Accepted(
        "number beyond 64 bits", b'{"a":[18446744073709551616,-9223372036854775809,123456789012345678901234567890]}'
    ),
    Accepted("number 4300 digits", b'{"a":' + b"7" * 4300 + b"}"),
    Accepted("number smallest double", b'{"a":5e-324}'),
    Accepted("number largest double", b'{"a":1.7976931348623157e308}'),
    Accepted("number many decimals", b'{"a":0.1000000000000000055511151231257827}'),
    Accepted("array nested 199", b'{"a":' + b"[" * 199 + b"]" * 199 + b"}"),
    Accepted("brackets in text are not depth", b'{"a":"' + b"[" * 500 + b'"}'),
    Accepted("wide object", b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(300)) + b"}"),
    Accepted("wide array", b'{"a":[' + b",".join(b"%d" % i for i in range(1000)) + b"]}"),
)

#: what parsers disagree about, and we take
I_ACCEPTED = (
    Accepted("lone high surrogate", b'{"a":"\\ud800"}'),
    Accepted("lone low surrogate", b'{"a":"\\udc00x"}'),
    Accepted("surrogates reversed", b'{"a":"\\udc00\\ud800"}'),
    Accepted("surrogate in key", b'{"\\ud800":1}'),
    Accepted("surrogate string prompt", b'"\\udfff"'),
    Accepted("surrogate and long integer", b'{"a":"\\ud800","b":18446744073709551616}'),
    Accepted("underflow to zero", b'{"a":1e-400}'),
    Accepted("repeated key", b'{"a":1,"a":2}'),
    Accepted("repeated key same value", b'{"b":1,"b":1}'),
    Accepted("minus zero float", b'{"a":-0.0}'),
)

#: what parsers disagree about, and we refuse
I_REFUSED = (
    Refused("4301 digits", b'{"a":' + b"1" * 4301 + b"}", 6, 5, "not JSON: an integer of 4,301 digits"),
    Refused("minus 4301 digits", b'{"a":-' + b"1" * 4301 + b"}", 6, 5, "not JSON: an integer of 4,301 digits"),
    Refused("infinite", b'{"a":1e309}', 6, 5),
    Refused("minus infinite", b'{"a":-1e9999}', 6, 5),
    Refused("depth 201", b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", 205, 204, "not JSON: nested deeper than 200"),
    Refused("depth 100000 open", b"[" * 100_000, 201, 200, "not JSON: nested deeper than 200"),
    Refused("depth objects", b'{"a":' * 300 + b"1" + b"}" * 300, 1001, 1000, "not JSON: nested deeper than 200"),
)

#: what no parser should take, and what is no record
N = (
    Refused("nothing but comma", b",", 1, 0),
    Refused("word", b"hello", 1, 0),
    Refused("true capital", b'{"a":True}', 6, 5),
    Refused("none", b'{"a":None}', 6, 5),
    Refused("nan", b'{"a":NaN}', 6, 5),
    Refused("infinity", b'{"a":Infinity}', 6, 5),
    Refused("minus infinity", b'{"a":-Infinity}', 7, 6),
    Refused("undefined", b'{"a":undefined}', 6, 5),
    Refused("single quotes", b"{'a':1}", 2, 1),
    Refused("bare key", b"{a:1}", 2, 1),
    Refused("number key", b"{1:1}", 2, 1),
    Refused("trailing comma object", b'{"a":1,}', 7, 6),
    Refused("trailing comma array", b'{"a":[1,]}', 8, 7),
    Refused("leading comma array", b'{"a":[,1]}', 7, 6),
    Refused("double comma", b'{"a":[1,,2]}', 9, 8),
    Refused("missing comma", b'{"a":1 "b":2}', 8, 7),
    Refused("missing colon", b'{"a" 1}', 6, 5),
    Refused("double colon", b'{"a"::1}', 6, 5),
    Refused("missing value", b'{"a":}', 6, 5),
    Refused("key only", b'{"a"}', 5, 4),
    Refused("unclosed object", b'{"a":1', 7, 6),
    Refused("unclosed array", b'{"a":[1', 8, 7),
    Refused("unclosed string", b'{"a":"x', 8, 7),
    Refused("mismatched", b'{"a":[1}', 8, 7),
    Refused("closing only", b"}", 1, 0),
    Refused("two values", b'{"a":1}{"b":2}', 8, 7),
    Refused("value and word", b'{"a":1} x', 9, 8),
    Refused("value and comma", b'{"a":1},', 8, 7),
    Refused("comment line", b'{"a":1} // one', 9, 8),
    Refused("comment block", b'{/* x */"a":1}', 2, 1),
    Refused("leading zero", b'{"a":01}', 6, 5),
    Refused("minus alone", b'{"a":-}', 7, 6),
    Refused("plus", b'{"a":+1}', 6, 5),
    Refused("point first", b'{"a":.5}', 6, 5),
    Refused("point last", b'{"a":1.}', 8, 7),
    Refused("exponent alone", b'{"a":1e}', 8, 7),
    Refused("hex", b'{"a":0x10}', 7, 6),
    Refused("underscore", b'{"a":1_000}', 7, 6),
    Refused("two minus", b'{"a":--1}', 7, 6),
    Refused("letter in number", b'{"a":12a}', 8, 7),
    Refused("escape unknown", b'{"a":"\\x41"}', 7, 6),
    Refused("escape short", b'{"a":"\\u12"}', 7, 6),
    Refused("escape not hex", b'{"a":"\\u12G4"}', 7, 6),
    Refused("escape at end", b'{"a":"\\', 8, 7),
    Refused("tab in string", b'{"a":"x\ty"}', 8, 7),
    Refused("cr in string", b'{"a":"x\ry"}', 8, 7),
    Refused("nul in string", b'{"a":"x\0y"}', 8, 7, "not JSON: a NUL byte"),
    Refused("nul alone", b"\0", 1, 0, "not JSON: a NUL byte"),
    Refused("nul after", b'{"a":1}\0', 8, 7, "not JSON: a NUL byte"),
    Refused("form feed as space", b'{"a":\f1}', 6, 5),
    Refused("nbsp as space", '{"a":\u00a01}'.encode(), 6, 5),
    Refused("bom mid file", b'\xef\xbb\xbf{"a":1}', 1, 0),
    Refused("utf8 overlong", b'{"a":"\xc0\xaf"}', 7, 6, "not JSON: byte 0xc0 is not UTF-8"),
    Refused("utf8 surrogate", b'{"a":"\xed\xa0\x80"}', 7, 6, "not JSON: byte 0xed is not UTF-8"),
    Refused("utf8 beyond", b'{"a":"\xf4\x90\x80\x80"}', 7, 6, "not JSON: byte 0xf4 is not UTF-8"),
    Refused("utf8 truncated", b'{"a":"\xe2\x82"}', 7, 6, "not JSON: byte 0xe2 is not UTF-8"),
    Refused("utf8 lone continuation", b'{"a":"\x80"}', 7, 6, "not JSON: byte 0x80 is not UTF-8"),
    Refused("latin1", b'{"a":"\xe9"}', 7, 6, "not JSON: byte 0xe9 is not UTF-8"),
    Refused("after characters of several bytes", '{"é€😀": x}'.encode(), 9, 14),
    Refused("scalar number", b"3", 1, 0, "a record is an object or a string, not 3"),
    Refused("scalar float", b"0.5", 1, 0, "a record is an object or a string, not 0.5"),
    Refused("scalar true", b"true", 1, 0, "a record is an object or a string, not true"),
    Refused("scalar null", b"null", 1, 0, "a record is an object or a string, not null"),
    Refused(
        "scalar long integer",
        b"1" * 60,
        1,
        0,
        "a record is an object or a string, not 1111111111111111111111111111111111111111",
    ),
    Refused("array", b'["a"]', 1, 0, "a record is an object or a string, not a list"),
    Refused("array empty", b"[]", 1, 0, "a record is an object or a string, not a list"),
    Refused("yaml", b"- a: 1", 2, 1),
    Refused("wrapped by control", b'\x1b[1m{"a":1}', 1, 0),
)

ACCEPTED: tuple[Accepted, ...] = (*Y, *I_ACCEPTED)
REFUSED: tuple[Refused, ...] = (*I_REFUSED, *N)
