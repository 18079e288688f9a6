//! JSON written as it comes, laid out as Envoy lays it out: one space for each level, so that the two can be compared line by
//! line. Owns the layout; what is in it are messages, one at a time.

use std::io::{self, Write};

use prost_reflect::{DynamicMessage, ReflectMessage as _, SerializeOptions};
use serde_json::ser::{Formatter, Serializer};

/// A JSON document that is being written. What is opened is closed by whoever opened it.
pub(crate) struct Text<'w, W> {
    out: &'w mut W,
    /// Whether something stands in each of the open objects and lists.
    filled: Vec<bool>,
    scratch: Vec<u8>,
}

impl<'w, W: Write> Text<'w, W> {
    pub(crate) fn new(out: &'w mut W) -> Self {
        Self { out, filled: Vec::new(), scratch: Vec::new() }
    }

    /// Begins an object as the next value.
    pub(crate) fn open_object(&mut self) -> io::Result<()> {
        self.filled.push(false);
        self.out.write_all(b"{")
    }

    /// Begins a list as the next value.
    pub(crate) fn open_list(&mut self) -> io::Result<()> {
        self.filled.push(false);
        self.out.write_all(b"[")
    }

    /// Ends the innermost object.
    pub(crate) fn close_object(&mut self) -> io::Result<()> {
        self.close(b"}")
    }

    /// Ends the innermost list.
    pub(crate) fn close_list(&mut self) -> io::Result<()> {
        self.close(b"]")
    }

    fn close(&mut self, end: &[u8]) -> io::Result<()> {
        if self.filled.pop() == Some(true) {
            line(self.out, self.filled.len())?;
        }
        self.out.write_all(end)
    }

    /// Ends the document.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n")
    }

    /// Makes room for the next value of a list.
    pub(crate) fn item(&mut self) -> io::Result<()> {
        if let Some(filled) = self.filled.last_mut()
            && std::mem::replace(filled, true)
        {
            self.out.write_all(b",")?;
        }
        line(self.out, self.filled.len())
    }

    /// Names the next value of an object.
    pub(crate) fn key(&mut self, key: &str) -> io::Result<()> {
        self.item()?;
        serde_json::to_writer(&mut *self.out, key)?;
        self.out.write_all(b": ")
    }

    /// A string as the next value.
    pub(crate) fn string(&mut self, value: &str) -> io::Result<()> {
        Ok(serde_json::to_writer(&mut *self.out, value)?)
    }

    /// A message as the next value, behind its type where `typed`.
    ///
    /// # Errors
    /// `InvalidData` for a message that has no JSON form (a time out of range); nothing of it is written then. Others are
    /// those of the output.
    pub(crate) fn message(&mut self, message: &DynamicMessage, typed: bool) -> io::Result<()> {
        // Aside first, since a message may turn out to have no JSON form halfway.
        self.scratch.clear();
        let depth = self.filled.len();
        let mut serializer = Serializer::with_formatter(&mut self.scratch, Layout { depth, filled: false });
        let options = SerializeOptions::new().use_proto_field_name(true);
        message
            .serialize_with_options(&mut serializer, &options)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if !typed {
            return self.out.write_all(&self.scratch);
        }
        // Every message of the admin's API is an object; its type goes in front of what is in it.
        self.out.write_all(b"{")?;
        line(self.out, depth + 1)?;
        write!(self.out, "\"@type\": \"{}\"", type_url(message))?;
        match &self.scratch[1..] {
            b"}" => {
                line(self.out, depth)?;
                self.out.write_all(b"}")
            }
            rest => {
                self.out.write_all(b",")?;
                self.out.write_all(rest)
            }
        }
    }
}

/// The type URL of a message, as Envoy writes it.
pub(crate) fn type_url(message: &DynamicMessage) -> String {
    format!("type.googleapis.com/{}", message.descriptor().full_name())
}

/// A new line, indented.
fn line<W: Write + ?Sized>(out: &mut W, depth: usize) -> io::Result<()> {
    out.write_all(b"\n")?;
    (0..depth).try_for_each(|_| out.write_all(b" "))
}

/// serde_json's layout, from a given depth on.
struct Layout {
    depth: usize,
    /// Whether the innermost object or list has something in it.
    filled: bool,
}

impl Layout {
    fn open<W: Write + ?Sized>(&mut self, out: &mut W, begin: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(begin)
    }

    fn close<W: Write + ?Sized>(&mut self, out: &mut W, end: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            line(out, self.depth)?;
        }
        self.filled = true;
        out.write_all(end)
    }

    fn item<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        line(out, self.depth)
    }

    fn number<W: Write + ?Sized>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        // As protobuf writes them: 1 and not 1.0. All such numbers below 2^53 are exact.
        if value.fract() == 0.0 && value.abs() < 9e15 {
            write!(out, "{}", value as i64)
        } else {
            write!(out, "{value:?}")
        }
    }
}

impl Formatter for Layout {
    fn begin_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn write_f64<W: Write + ?Sized>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        self.number(out, value)
    }

    fn write_f32<W: Write + ?Sized>(&mut self, out: &mut W, value: f32) -> io::Result<()> {
        if value.fract() == 0.0 { self.number(out, value.into()) } else { write!(out, "{value:?}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::schema::Schema;
    use prost_reflect::DynamicMessage;

    fn message(schema: &Schema, name: &str, json: &str) -> DynamicMessage {
        let descriptor = schema.by_url(name).unwrap();
        DynamicMessage::deserialize(descriptor, &mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    /// The layout is checked against that of serde_json, with one space a level and no other depth.
    #[test]
    fn a_message_is_laid_out_as_deep_as_it_stands() {
        let schema = Schema::load();
        let json = r#"{"@type": "type.googleapis.com/envoy.config.core.v3.Node", "id": "a", "metadata": {"b": [1, 1.5, {}, []]}}"#;
        let node = message(
            &schema,
            "envoy.config.core.v3.Node",
            &json.replacen(r#""@type": "type.googleapis.com/envoy.config.core.v3.Node", "#, "", 1),
        );
        let mut out = Vec::new();
        let mut text = Text::new(&mut out);
        text.open_object().unwrap();
        text.key("configs").unwrap();
        text.open_list().unwrap();
        text.item().unwrap();
        text.message(&node, true).unwrap();
        text.item().unwrap();
        text.message(&DynamicMessage::new(node.descriptor()), true).unwrap();
        text.item().unwrap();
        text.message(&DynamicMessage::new(node.descriptor()), false).unwrap();
        text.close_list().unwrap();
        text.key("empty").unwrap();
        text.open_list().unwrap();
        text.close_list().unwrap();
        text.close_object().unwrap();
        let bare = r#"{"@type": "type.googleapis.com/envoy.config.core.v3.Node"}"#;
        let whole: serde_json::Value =
            serde_json::from_str(&format!(r#"{{"configs": [{json}, {bare}, {{}}], "empty": []}}"#)).unwrap();
        let mut expected = Vec::new();
        let layout = serde_json::ser::PrettyFormatter::with_indent(b" ");
        serde::Serialize::serialize(&whole, &mut Serializer::with_formatter(&mut expected, layout)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(expected).unwrap());
    }

    #[test]
    fn what_has_no_json_form_leaves_no_half() {
        let schema = Schema::load();
        let mut time = DynamicMessage::new(schema.by_url("envoy.admin.v3.UpdateFailureState").unwrap());
        let mut stamp = DynamicMessage::new(schema.by_url("google.protobuf.Timestamp").unwrap());
        stamp.set_field_by_name("seconds", prost_reflect::Value::I64(i64::MAX));
        time.set_field_by_name("details", prost_reflect::Value::String("x".into()));
        time.set_field_by_name("last_update_attempt", prost_reflect::Value::Message(stamp));
        let mut out = Vec::new();
        let error = Text::new(&mut out).message(&time, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(out.is_empty());
    }
}
