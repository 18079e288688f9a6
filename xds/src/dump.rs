//! `/config_dump`: what was configured, in Envoy's shape (`envoy.admin.v3.ConfigDump`). Owns the page: what may be asked, in
//! which order resources are written, and that no more than one of them is held as text at a time. Secrets never leave it.
//!
//! Resources are shown from the bytes in which they came, so nothing is lost on the way. The descriptors that this takes are
//! loaded for each dump and dropped behind it; everything happens on the page's own thread, and of the agent's thread it takes
//! one look at the resources of each type.

mod entry;
mod held;
mod mask;
mod query;
mod record;
mod redact;
mod secrets;
mod section;
mod text;

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use corelane::{
    admin::{Asked, Pages, Reply, Sink},
    wire::Status,
};
use corelane_io::release_freed_memory;
use prost_reflect::{DynamicMessage, Kind as FieldKind, MessageDescriptor};

use crate::{bootstrap, message::schema::Schema, store::Kind};

use mask::Mask;
use query::Filter;
use section::{ENDPOINTS, List, SECTIONS, Section};

pub(crate) use self::{
    entry::Entry,
    redact::Redactor,
    secrets::{hold_secrets, without_secrets},
    text::Text,
};
pub use record::{Fault, Kept, Record};
#[cfg(test)]
pub(crate) use secrets::body_of;

const BOOTSTRAP: &str = "envoy.admin.v3.BootstrapConfigDump";

/// Where a dump reads what control planes gave.
pub trait Inventory: Send + Sync {
    /// All resources of a type, in any order. May wait for the agent's thread.
    fn records(&self, kind: Kind) -> Vec<Record>;

    /// The version of the newest response of a type; empty before the first.
    fn version(&self, kind: Kind) -> Arc<str>;
}

/// What dumps are made of.
pub struct Dump {
    bootstrap: Mutex<(Bytes, SystemTime)>,
    /// Comes later than the first page, which may be asked for as soon as the process lives.
    inventory: OnceLock<Box<dyn Inventory>>,
}

/// What one dump is made of.
pub(crate) struct Contents<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) bootstrap: &'a DynamicMessage,
    /// When that was read.
    pub(crate) loaded: SystemTime,
    inventory: Option<&'a dyn Inventory>,
}

impl Contents<'_> {
    /// The resources of a type, by name.
    pub(crate) fn records(&self, kind: Kind) -> Vec<Record> {
        let mut records = self.inventory.map(|inventory| inventory.records(kind)).unwrap_or_default();
        records.sort_by(|a, b| a.name.cmp(&b.name).then(a.source.cmp(&b.source)));
        records
    }
}

impl Dump {
    /// Dumps of a bootstrap: the message's bytes, read at `loaded`.
    pub fn new(bootstrap: Bytes, loaded: SystemTime) -> Self {
        Self { bootstrap: Mutex::new((bootstrap, loaded)), inventory: OnceLock::new() }
    }

    /// Shows what control planes gave too. The first inventory stays.
    pub fn follow(&self, inventory: impl Inventory + 'static) {
        // A process has one agent.
        let _ = self.inventory.set(Box::new(inventory));
    }

    /// What a reload read.
    pub fn set_bootstrap(&self, bootstrap: Bytes, loaded: SystemTime) {
        *self.bootstrap.lock().unwrap_or_else(PoisonError::into_inner) = (bootstrap, loaded);
    }

    /// Adds the page.
    pub fn page(self: &Arc<Self>, pages: Pages) -> Pages {
        let help = "dump current configuration, secrets redacted; ?resource=FIELD, ?mask=PATHS, ?name_regex=REGEX, \
                    ?include_eds";
        let dump = self.clone();
        pages.stream("/config_dump", help, false, "application/json", move |asked, sink| {
            dump.answer(asked, sink)
        })
    }

    fn answer(&self, asked: &Asked, sink: &mut Sink) -> Result<(), Reply> {
        let filter = Filter::parse(&asked.query)?;
        let outcome = self.write(&filter, sink);
        // The descriptors went.
        release_freed_memory();
        outcome
    }

    /// Writes what `filter` lets through.
    ///
    /// # Errors
    /// The reply to a question that has no answer. An output that takes no more is not an error: nobody is there to be told.
    fn write(&self, filter: &Filter, out: &mut impl Write) -> Result<(), Reply> {
        let schema = Schema::load();
        self.with_contents(&schema, |contents| {
            let writer = Writer { contents, filter, redactor: Redactor::new(&schema), text: Text::new(out) };
            match &filter.resource {
                Some(field) => writer.list(field),
                None => writer.sections(),
            }
        })
    }

    /// Lets `with` look at what there is now.
    pub(crate) fn with_contents<R>(&self, schema: &Schema, with: impl FnOnce(&Contents<'_>) -> R) -> R {
        let (bytes, loaded) = self.bootstrap.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bootstrap = bootstrap::open(schema, &bytes);
        let inventory = self.inventory.get().map(AsRef::as_ref);
        with(&Contents { schema, bootstrap: &bootstrap, loaded, inventory })
    }
}

/// One dump that is being written.
struct Writer<'a, 'w, W> {
    contents: &'a Contents<'a>,
    filter: &'a Filter,
    redactor: Redactor<'a>,
    text: Text<'w, W>,
}

impl<W: Write> Writer<'_, '_, W> {
    /// `?resource=`: the entries of one list, each a config by itself.
    fn list(mut self, field: &str) -> Result<(), Reply> {
        let (list, of) = self.find(field)?;
        let schema = self.contents.schema;
        let mask = match &self.filter.mask {
            Some(paths) => Some(
                Mask::parse(paths, &of, schema.by_url(list.kind.type_url()).as_ref())
                    .map_err(|path| unusable(&path))?,
            ),
            None => None,
        };
        let (filter, redactor, text) = (self.filter, &mut self.redactor, &mut self.text);
        let mut begun = false;
        let mut write = || {
            text.open_object()?;
            list.entries(self.contents, &of, &|name| filter.wants(name), &mut |mut entry| {
                if !std::mem::replace(&mut begun, true) {
                    text.key("configs")?;
                    text.open_list()?;
                }
                if let Some(mask) = &mask {
                    mask.trim(&mut entry, schema);
                }
                write_entry(text, redactor, entry, true)
            })?;
            if begun {
                text.close_list()?;
            }
            text.close_object()?;
            text.end()
        };
        ignore(write());
        Ok(())
    }

    /// The list that is the field `name` of a section, and the type of its entries.
    fn find(&self, name: &str) -> Result<(&'static List, MessageDescriptor), Reply> {
        let schema = self.contents.schema;
        for message in std::iter::once(BOOTSTRAP).chain(self.shown().map(|section| section.message)) {
            let field = schema.by_url(message).and_then(|section| section.get_field_by_name(name));
            let Some(field) = field else { continue };
            let list = SECTIONS.iter().flat_map(|section| section.lists).find(|list| list.field == name);
            return match (list, field.kind()) {
                (Some(list), FieldKind::Message(of)) if field.is_list() => Ok((list, of)),
                _ => {
                    let what =
                        format!("{name} is not a repeated field. Use ?mask={name} to get only this field");
                    Err(Reply::text(Status::BAD_REQUEST, what))
                }
            };
        }
        Err(Reply::text(Status::NOT_FOUND, format!("{name} not found in config dump")))
    }

    /// The sections that are asked for.
    fn shown(&self) -> impl Iterator<Item = &'static Section> {
        let endpoints = self.filter.include_eds;
        SECTIONS.iter().filter(move |section| endpoints || section.message != ENDPOINTS)
    }

    /// All sections, or those that the mask applies to.
    fn sections(mut self) -> Result<(), Reply> {
        let schema = self.contents.schema;
        let mut applied = Vec::new();
        for message in std::iter::once(BOOTSTRAP).chain(self.shown().map(|section| section.message)) {
            // Names of Envoy's API.
            let Some(of) = schema.by_url(message) else { continue };
            match &self.filter.mask {
                None => applied.push((message, of, None)),
                Some(paths) => {
                    if let Ok(mask) = Mask::parse(paths, &of, None) {
                        applied.push((message, of, Some(mask)));
                    }
                }
            }
        }
        if applied.is_empty() {
            let paths = self.filter.mask.as_deref().unwrap_or_default();
            let what = format!("FieldMask {paths} could not be successfully applied to any configs.");
            return Err(Reply::text(Status::BAD_REQUEST, what));
        }
        ignore(self.write_sections(applied));
        Ok(())
    }

    fn write_sections(&mut self, sections: Vec<(&str, MessageDescriptor, Option<Mask>)>) -> io::Result<()> {
        self.text.open_object()?;
        self.text.key("configs")?;
        self.text.open_list()?;
        for (message, of, mask) in sections {
            match SECTIONS.iter().find(|section| section.message == message) {
                Some(section) => self.section(section, &of, mask.as_ref())?,
                None => self.bootstrap(of, mask.as_ref())?,
            }
        }
        self.text.close_list()?;
        self.text.close_object()?;
        self.text.end()
    }

    fn bootstrap(&mut self, of: MessageDescriptor, mask: Option<&Mask>) -> io::Result<()> {
        let contents = self.contents;
        let bootstrap = prost_reflect::Value::Message(contents.bootstrap.clone());
        let entry = Entry::new(contents.schema, of).value("bootstrap", bootstrap);
        let mut entry = entry.time("last_updated", contents.loaded).done();
        if let Some(mask) = mask {
            mask.trim(&mut entry, contents.schema);
        }
        write_entry(&mut self.text, &mut self.redactor, entry, true)
    }

    fn section(&mut self, section: &Section, of: &MessageDescriptor, mask: Option<&Mask>) -> io::Result<()> {
        let (contents, filter) = (self.contents, self.filter);
        let (text, redactor) = (&mut self.text, &mut self.redactor);
        let wants = |field| mask.is_none_or(|mask| mask.wants(field));
        text.item()?;
        text.open_object()?;
        text.key("@type")?;
        text.string(&format!("type.googleapis.com/{}", section.message))?;
        let version = section.versioned.zip(contents.inventory).map(|(kind, from)| from.version(kind));
        if let Some(version) = version.filter(|version| !version.is_empty() && wants("version_info")) {
            text.key("version_info")?;
            text.string(&version)?;
        }
        for list in section.lists.iter().filter(|list| wants(list.field)) {
            let of = of.get_field_by_name(list.field).map(|field| field.kind());
            // The tables name lists of messages only.
            let Some(FieldKind::Message(of)) = of else { continue };
            let mut begun = false;
            list.entries(contents, &of, &|name| filter.wants(name), &mut |entry| {
                if !std::mem::replace(&mut begun, true) {
                    text.key(list.field)?;
                    text.open_list()?;
                }
                write_entry(text, redactor, entry, false)
            })?;
            if begun {
                text.close_list()?;
            }
        }
        text.close_object()
    }
}

/// Writes an entry without its secrets.
fn write_entry<W: Write>(
    text: &mut Text<'_, W>,
    redactor: &mut Redactor<'_>,
    mut entry: DynamicMessage,
    typed: bool,
) -> io::Result<()> {
    redactor.message(&mut entry);
    text.item()?;
    match text.message(&entry, typed) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            // Refused content can hold what JSON cannot say, such as a time past the year 9999: its names are still told.
            let messages: Vec<_> = entry
                .fields()
                .map(|(field, _)| field)
                .filter(|field| matches!(field.kind(), FieldKind::Message(_)))
                .collect();
            messages.iter().for_each(|field| entry.clear_field(field));
            text.message(&entry, typed)
        }
        outcome => outcome,
    }
}

fn unusable(path: &str) -> Reply {
    let what = format!("FieldMask paths: {path:?} could not be successfully used.");
    Reply::text(Status::BAD_REQUEST, what)
}

/// An output that takes no more belongs to a client that is gone.
fn ignore(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        log::debug!("a config dump was cut short: {error}");
    }
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dump {{ dynamic: {} }}", self.inventory.get().is_some())
    }
}

#[cfg(test)]
mod tests;
