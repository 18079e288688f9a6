//! A quick look at an encoded message: whether it surely keeps the rules that [`Validator`] enforces, from its bytes alone.
//! Owns a small table per message type, made once from the descriptors, which may then be dropped. Never says what is wrong:
//! what it does not pass goes to the validator, which knows everything and costs fifty times as much.
//!
//! [`Validator`]: super::validate::Validator

mod bound;
mod table;
mod wire;

use std::{cell::RefCell, collections::HashMap, fmt, rc::Rc};

use prost::Name;

use crate::message::schema::OnDemand;
use table::{Compiler, Field, Type};
use wire::Item;

/// Deepest nesting that is looked at; protobuf's decoder refuses more than 100.
const DEPTH: usize = 100;

/// What is known about types so far.
#[derive(Default)]
pub struct Screen {
    types: RefCell<HashMap<String, Option<Rc<Type>>>>,
}

impl Screen {
    /// Whether `bytes`, an encoded `M`, surely keep every rule, with all that is in it. `false` says nothing: ask the
    /// validator. `schema` gives the descriptors, once for each type.
    pub fn passes<M: Name>(&self, bytes: &[u8], schema: &OnDemand) -> bool {
        let look = Look { screen: self, schema };
        match look.find(&M::full_name()) {
            Some(of) => look.message(&of, bytes, 0),
            None => false,
        }
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Screen({} types)", self.types.borrow().len())
    }
}

/// One look.
struct Look<'s> {
    screen: &'s Screen,
    schema: &'s OnDemand,
}

impl Look<'_> {
    /// The table of a type; `None` if there is no such type.
    fn find(&self, name: &str) -> Option<Rc<Type>> {
        if let Some(known) = self.screen.types.borrow().get(name) {
            return known.clone();
        }
        let made = Compiler::new(self.schema).message(name).map(Rc::new);
        self.screen.types.borrow_mut().insert(name.to_owned(), made.clone());
        made
    }

    fn message(&self, of: &Type, bytes: &[u8], depth: usize) -> bool {
        if depth > DEPTH {
            return false;
        }
        if of.is_any {
            return self.any(bytes, depth);
        }
        let mut seen = Seen::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((number, item)) = wire::next(&mut rest) else { return false };
            // A field that nobody knows would be dropped by the decoder without a word.
            let Some(at) = of.find(number) else { return false };
            seen.note(at);
            if !self.field(&of.fields[at], item, depth) {
                return false;
            }
        }
        of.complete(&seen)
    }

    /// One occurrence of a field.
    fn field(&self, field: &Field, item: Item<'_>, depth: usize) -> bool {
        if !field.bound.holds(field.shape, item) {
            return false;
        }
        match (&field.inner, item) {
            (None, _) => true,
            (Some(inner), Item::Bytes(bytes)) => {
                let of = inner.cell.get_or_init(|| self.find(&inner.name));
                of.as_ref().is_some_and(|of| self.message(of, bytes, depth + 1))
            }
            (Some(_), _) => false,
        }
    }

    /// What an Any holds, where its type is known; whoever opens it deals with one that is not.
    fn any(&self, bytes: &[u8], depth: usize) -> bool {
        let (mut url, mut value): (&[u8], &[u8]) = (b"", b"");
        let mut rest = bytes;
        while !rest.is_empty() {
            match wire::next(&mut rest) {
                Some((1, Item::Bytes(bytes))) => url = bytes,
                Some((2, Item::Bytes(bytes))) => value = bytes,
                _ => return false,
            }
        }
        let Ok(url) = std::str::from_utf8(url) else { return false };
        match self.find(url.rsplit('/').next().unwrap_or(url)) {
            Some(of) => self.message(&of, value, depth + 1),
            None => true,
        }
    }
}

/// Which fields of a message there were, and how often.
#[derive(Default)]
struct Seen {
    counts: Vec<(usize, u32)>,
}

impl Seen {
    /// Notes an occurrence of the field at a place in its table.
    fn note(&mut self, at: usize) {
        match self.counts.iter_mut().find(|(known, _)| *known == at) {
            Some((_, count)) => *count += 1,
            None => self.counts.push((at, 1)),
        }
    }

    fn count(&self, at: usize) -> u32 {
        self.counts.iter().find(|(known, _)| *known == at).map_or(0, |(_, count)| *count)
    }
}

#[cfg(test)]
mod tests;
