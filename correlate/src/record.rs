//! One record: which stage it is of, which key it has, and the rest, as it came.
//!
//! - A key is a JSON string or a JSON integer of any length. `1` and `"1"` are different keys; `"A"` and `"\u0041"` are
//!   the same, and so are `0` and `-0`.
//! - CSV has no types. A CSV key that is written like a JSON integer (`42`, not `042`) is one, and meets NDJSON's
//!   integers; every other is a string. [`CsvKeys`] says otherwise where that is wanted.
//! - The rest is what remains of the object without the stage and the key: each name and each value byte for byte as it
//!   was, in its order. Only blanks between them are gone. CSV values become JSON strings, so that nothing is altered.

use std::{fmt, str};

use clap::ValueEnum;
use csv::ByteRecord;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a CSV key is, as CSV itself does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CsvKeys {
    /// An integer if it is written like one, else a string
    #[default]
    Auto,
    /// A string, always
    String,
    /// An integer; a line with any other key is broken
    Integer,
}

/// Where a record's stage and key are.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    /// The field that names the stage.
    pub(crate) stage: String,
    /// The field that holds the key.
    pub(crate) key: String,
    /// What a CSV key is.
    pub(crate) csv_keys: CsvKeys,
}

/// A record, taken apart. Used again and again, so that no record costs an allocation.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The stage's name.
    pub(crate) stage: String,
    /// The key: `i` and its digits, or `s` and its characters. Equal bytes, equal keys.
    pub(crate) key: Vec<u8>,
    /// The rest, a JSON object.
    pub(crate) rest: Vec<u8>,
}

/// What is wrong with a line.
pub(crate) type Why = String;

impl Record {
    /// Takes a line of NDJSON apart.
    pub(crate) fn read_json(&mut self, line: &[u8], fields: &Fields) -> Result<(), Why> {
        let line = str::from_utf8(line)
            .map_err(|error| format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
        let mut parser = serde_json::Deserializer::from_str(line);
        let problem = parser.deserialize_map(Pieces { fields, record: self });
        match problem.and_then(|problem| parser.end().map(|()| problem)) {
            Ok(None) => Ok(()),
            Ok(Some(problem)) => Err(problem),
            // The parser's line is always the first.
            Err(error) => Err(format!("no JSON object: {error}").replace(" at line 1 column ", " at byte ")),
        }
    }

    /// Takes a record of CSV apart.
    pub(crate) fn read_csv(
        &mut self,
        record: &ByteRecord,
        header: &Header,
        fields: &Fields,
    ) -> Result<(), Why> {
        let (stage, key) = header.places.as_ref().map_err(Clone::clone)?;
        if record.len() != header.names.len() {
            return Err(format!("{} fields where the header has {}", record.len(), header.names.len()));
        }
        let text =
            |at: usize| str::from_utf8(&record[at]).map_err(|_| format!("field {} is not UTF-8", at + 1));
        self.stage.clear();
        self.stage.push_str(text(*stage)?);
        if self.stage.is_empty() {
            return Err(format!("field `{}` is empty", fields.stage));
        }
        let text_of_key = text(*key)?;
        self.key.clear();
        match (fields.csv_keys, integer(text_of_key)) {
            _ if text_of_key.is_empty() => return Err(format!("field `{}` is empty", fields.key)),
            (CsvKeys::Auto | CsvKeys::Integer, Some(digits)) => put(&mut self.key, b'i', digits),
            (CsvKeys::Auto | CsvKeys::String, _) => put(&mut self.key, b's', text_of_key),
            (CsvKeys::Integer, None) => return Err(format!("field `{}` is no integer", fields.key)),
        }
        self.rest.clear();
        self.rest.push(b'{');
        for (at, name) in header.names.iter().enumerate() {
            if at != *stage && at != *key {
                if self.rest.len() > 1 {
                    self.rest.push(b',');
                }
                self.rest.extend_from_slice(name);
                self.rest.push(b':');
                quote(&mut self.rest, text(at)?);
            }
        }
        self.rest.push(b'}');
        Ok(())
    }
}

/// The first line of a CSV file.
#[derive(Debug)]
pub(crate) struct Header {
    /// The fields' names, as JSON strings.
    names: Vec<Vec<u8>>,
    /// Which fields are the stage and the key, or why no record of this file can be read.
    places: Result<(usize, usize), Why>,
}

impl Header {
    /// Looks for the stage and the key.
    pub(crate) fn new(record: &ByteRecord, fields: &Fields) -> Header {
        let names: Vec<String> =
            record.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let place = |wanted: &str| {
            let mut places = names.iter().enumerate().filter(|(_, name)| *name == wanted).map(|(at, _)| at);
            match (places.next(), places.next()) {
                (Some(at), None) => Ok(at),
                (None, _) => Err(format!("no field `{wanted}` in the header")),
                (Some(_), Some(_)) => Err(format!("field `{wanted}` is in the header twice")),
            }
        };
        let places = place(&fields.stage).and_then(|stage| Ok((stage, place(&fields.key)?)));
        let is_text = record.iter().all(|name| str::from_utf8(name).is_ok());
        let places = if is_text { places } else { Err("the header is not UTF-8".to_owned()) };
        let quoted = |name: &String| {
            let mut quoted = Vec::new();
            quote(&mut quoted, name);
            quoted
        };
        Header { names: names.iter().map(quoted).collect(), places }
    }
}

/// Appends a text as a JSON string.
pub(crate) fn quote(into: &mut Vec<u8>, text: &str) {
    // Writing into memory does not fail.
    let _ = serde_json::to_writer(into, text);
}

/// Appends a key as JSON.
pub(crate) fn write_key(into: &mut Vec<u8>, key: &[u8]) {
    match key.split_first() {
        Some((b's', text)) => quote(into, &String::from_utf8_lossy(text)),
        Some((_, digits)) => into.extend_from_slice(digits),
        None => into.extend_from_slice(b"null"),
    }
}

fn put(key: &mut Vec<u8>, kind: u8, text: &str) {
    key.push(kind);
    key.extend_from_slice(text.as_bytes());
}

/// The digits of a JSON integer, in the one way to write it.
fn integer(text: &str) -> Option<&str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    match digits.as_bytes() {
        b"0" => Some("0"),
        [b'1'..=b'9', more @ ..] if more.iter().all(u8::is_ascii_digit) => Some(text),
        _ => None,
    }
}

/// The text of a JSON string, as it is between its quotes if it has no escapes.
fn unquoted(raw: &str) -> Option<Result<std::borrow::Cow<'_, str>, Why>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Ok(inner.into()));
    }
    // Raw values may hold escapes that stand for no character.
    Some(
        serde_json::from_str::<String>(raw)
            .map(Into::into)
            .map_err(|_| "an escape that is no character".to_owned()),
    )
}

/// Sorts an object's fields. What is returned is a problem with them, if there is one, in an object that is sound.
struct Pieces<'a> {
    fields: &'a Fields,
    record: &'a mut Record,
}

impl<'de> Visitor<'de> for Pieces<'_> {
    type Value = Option<Why>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Option<Why>, M::Error> {
        let Pieces { fields, record: Record { stage, key, rest } } = self;
        stage.clear();
        key.clear();
        rest.clear();
        rest.push(b'{');
        let (mut has_stage, mut problem) = (false, None);
        while let Some(name) = map.next_key::<&RawValue>()? {
            let value = map.next_value::<&RawValue>()?.get();
            let raw_name = name.get();
            let name = unquoted(raw_name).unwrap_or_else(|| Ok(raw_name.into()));
            let found = match name.as_deref() {
                Ok(name) if name == fields.stage => {
                    let twice = std::mem::replace(&mut has_stage, true);
                    take_stage(stage, value)
                        .and_then(|()| once(twice))
                        .map_err(|why| format!("field `{name}` {why}"))
                }
                Ok(name) if name == fields.key => {
                    let twice = !key.is_empty();
                    take_key(key, value)
                        .and_then(|()| once(twice))
                        .map_err(|why| format!("field `{name}` {why}"))
                }
                _ => {
                    if rest.len() > 1 {
                        rest.push(b',');
                    }
                    rest.extend_from_slice(raw_name.as_bytes());
                    rest.push(b':');
                    rest.extend_from_slice(value.as_bytes());
                    Ok(())
                }
            };
            problem = problem.or(found.err());
        }
        rest.push(b'}');
        if problem.is_none() && !has_stage {
            problem = Some(format!("no field `{}`", fields.stage));
        }
        if problem.is_none() && key.is_empty() {
            problem = Some(format!("no field `{}`", fields.key));
        }
        Ok(problem)
    }
}

fn once(twice: bool) -> Result<(), Why> {
    if twice { Err("is there twice".to_owned()) } else { Ok(()) }
}

fn take_stage(stage: &mut String, value: &str) -> Result<(), Why> {
    stage.clear();
    match unquoted(value) {
        Some(text) => stage.push_str(&text.map_err(|why| format!("holds {why}"))?),
        None => stage.push_str(integer(value).ok_or("is neither a string nor an integer")?),
    }
    Ok(())
}

fn take_key(key: &mut Vec<u8>, value: &str) -> Result<(), Why> {
    key.clear();
    match unquoted(value) {
        Some(text) => put(key, b's', &text.map_err(|why| format!("holds {why}"))?),
        None => put(key, b'i', integer(value).ok_or("is neither a string nor an integer")?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields { stage: "stage".to_owned(), key: "key".to_owned(), csv_keys: CsvKeys::Auto }
    }

    fn json(line: &str) -> Result<(String, String, String), Why> {
        let mut record = Record::default();
        record.read_json(line.as_bytes(), &fields())?;
        let text = |bytes| String::from_utf8(bytes).expect("records are text");
        Ok((record.stage, text(record.key), text(record.rest)))
    }

    fn csv(header: &[&str], record: &[&str], csv_keys: CsvKeys) -> Result<(String, String, String), Why> {
        let fields = Fields { csv_keys, ..fields() };
        let header = Header::new(&ByteRecord::from(header), &fields);
        let mut read = Record::default();
        read.read_csv(&ByteRecord::from(record), &header, &fields)?;
        let text = |bytes| String::from_utf8(bytes).expect("records are text");
        Ok((read.stage, text(read.key), text(read.rest)))
    }

    fn parts(stage: &str, key: &str, rest: &str) -> Result<(String, String, String), Why> {
        Ok((stage.to_owned(), key.to_owned(), rest.to_owned()))
    }

    #[test]
    fn the_rest_is_carried_byte_for_byte() {
        let rest = r#"{"big":123456789012345678901234567890,"float":1.10e+0,"text":"\u00e9é\/\n","deep":{"stage": [1, {}]},"\u0041":-0.0}"#;
        let line = format!(r#"{{"stage":"A","key":7,{}"#, &rest[1..]);
        assert_eq!(json(&line), parts("A", "i7", rest));
    }

    #[test]
    fn fields_may_stand_anywhere_and_be_alone() {
        assert_eq!(
            json(r#" { "x" : 1 , "key" : "k" , "y" : [ 2 ] , "stage" : "B" } "#),
            parts("B", "sk", r#"{"x":1,"y":[ 2 ]}"#)
        );
        assert_eq!(json(r#"{"key":1,"stage":"A"}"#), parts("A", "i1", "{}"));
    }

    #[test]
    fn an_integer_and_a_string_are_different_keys() {
        let key = |line| json(line).expect("a sound line").1;
        assert_ne!(key(r#"{"key":1,"stage":"A"}"#), key(r#"{"key":"1","stage":"A"}"#));
        assert_eq!(key(r#"{"key":"A","stage":"A"}"#), key(r#"{"k\u0065y":"\u0041","stage":"A"}"#));
        assert_eq!(key(r#"{"key":-0,"stage":"A"}"#), key(r#"{"key":0,"stage":"A"}"#));
        assert_eq!(key(r#"{"key":18446744073709551616,"stage":3}"#), "i18446744073709551616");
        assert_eq!(key(r#"{"key":"","stage":"A"}"#), "s");
    }

    #[test]
    fn what_is_broken_is_said_to_be() {
        for (line, why) in [
            ("", "no JSON object"),
            ("[1]", "no JSON object"),
            (r#"{"key":1,"stage":"A""#, "no JSON object"),
            (r#"{"key":1,"stage":"A"} {}"#, "no JSON object"),
            (r#"{"key":1,"stage":"A","x":01}"#, "no JSON object"),
            (r#"{"key":1}"#, "no field `stage`"),
            (r#"{"stage":"A"}"#, "no field `key`"),
            (r#"{"stage":{"stage":"A"},"key":1}"#, "field `stage` is neither a string nor an integer"),
            (r#"{"stage":"A","key":1.0}"#, "field `key` is neither a string nor an integer"),
            (r#"{"stage":"A","key":null}"#, "field `key` is neither a string nor an integer"),
            (r#"{"stage":"A","key":1,"key":1}"#, "field `key` is there twice"),
            (r#"{"stage":"A","stage":"B","key":1}"#, "field `stage` is there twice"),
            (r#"{"stage":"A","key":"\ud800"}"#, "field `key` holds an escape that is no character"),
        ] {
            let said = json(line).expect_err(line);
            assert!(said.starts_with(why), "{line}: {said}");
        }
        let said = Record::default().read_json(b"{\"key\":\"\xff\"}", &fields()).expect_err("not UTF-8");
        assert_eq!(said, "not UTF-8 from byte 9 on");
    }

    #[test]
    fn nesting_of_any_depth_is_carried() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let line = format!(r#"{{"key":1,"stage":"A","deep":{deep}}}"#);
        assert_eq!(json(&line), parts("A", "i1", &format!(r#"{{"deep":{deep}}}"#)));
    }

    #[test]
    fn csv_values_are_strings_and_csv_keys_what_they_look_like() {
        let header = ["amount", "key", "stage", "na\"me"];
        let rest = r#"{"amount":"1.50","na\"me":"é, \"x\"\n"}"#;
        assert_eq!(csv(&header, &["1.50", "42", "A", "é, \"x\"\n"], CsvKeys::Auto), parts("A", "i42", rest));
        let key = |key, keys| csv(&["key", "stage"], &[key, "A"], keys).map(|(_, key, _)| key);
        assert_eq!(key("042", CsvKeys::Auto).as_deref(), Ok("s042"));
        assert_eq!(key("42", CsvKeys::String).as_deref(), Ok("s42"));
        assert_eq!(key("-7", CsvKeys::Integer).as_deref(), Ok("i-7"));
        assert!(key("x", CsvKeys::Integer).is_err() && key("", CsvKeys::Auto).is_err());
    }

    #[test]
    fn a_csv_record_must_fit_its_header() {
        let why = |header: &[&str], record: &[&str]| csv(header, record, CsvKeys::Auto).expect_err("broken");
        assert_eq!(why(&["key", "stage"], &["1"]), "1 fields where the header has 2");
        assert_eq!(why(&["key", "x"], &["1", "2"]), "no field `stage` in the header");
        assert_eq!(why(&["key", "stage", "key"], &["1", "A", "2"]), "field `key` is in the header twice");
    }
}
