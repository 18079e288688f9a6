//! The descriptors of Envoy's API. Owns loading them and finding a message by the type URL of an Any. Loaded where text or an
//! error path has to be made, then dropped: it takes some 18 MB and 40 ms.

use std::{cell::OnceCell, fmt, ops::Deref};

use corelane_proto::google::protobuf::Any;
use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

/// All message types that a configuration can name.
#[derive(Clone, Debug)]
pub struct Schema {
    pool: DescriptorPool,
}

impl Schema {
    /// Loads the descriptors that `corelane-proto` was built with.
    pub fn load() -> Self {
        // The bytes come from our own build script, which had protox link them.
        let pool =
            DescriptorPool::decode(corelane_proto::DESCRIPTORS).expect("the built-in descriptors are linked");
        Self { pool }
    }

    /// The message that a type URL names: what follows its last slash.
    pub fn by_url(&self, url: &str) -> Option<MessageDescriptor> {
        self.pool.get_message_by_name(url.rsplit('/').next().unwrap_or(url))
    }

    /// The descriptor of a generated type.
    pub fn of<M: Name>(&self) -> MessageDescriptor {
        // Types and descriptors are generated from one set of files, so no name can be missing.
        self.pool.get_message_by_name(&M::full_name()).expect("every generated type is described")
    }

    /// A generated message, for a look at it by reflection.
    pub fn reflect<M: Name>(&self, message: &M) -> DynamicMessage {
        let bytes = message.encode_to_vec();
        DynamicMessage::decode(self.of::<M>(), bytes.as_slice()).expect("a type and its descriptor agree")
    }

    /// The bytes of a generated type, for a look at them by reflection: fields that the generated type does not have are
    /// still there.
    ///
    /// # Errors
    /// In words: the bytes are not of it.
    pub fn decode<M: Name>(&self, bytes: &[u8]) -> Result<DynamicMessage, String> {
        DynamicMessage::decode(self.of::<M>(), bytes).map_err(|error| format!("does not decode: {error}"))
    }

    /// What an Any holds.
    ///
    /// # Errors
    /// In words: the type is not known, or the bytes are not of it.
    pub fn open(&self, any: &Any) -> Result<DynamicMessage, String> {
        let descriptor =
            self.by_url(&any.type_url).ok_or_else(|| format!("the type {:?} is not known", any.type_url))?;
        DynamicMessage::decode(descriptor, any.value.clone())
            .map_err(|error| format!("does not decode: {error}"))
    }

    /// What a message of type `google.protobuf.Any` holds; `None` where its type is not known or its bytes are not of it.
    pub(crate) fn open_dynamic(&self, any: &DynamicMessage) -> Option<DynamicMessage> {
        let url = any.get_field_by_name("type_url")?;
        let descriptor = self.by_url(url.as_str()?)?;
        let value = any.get_field_by_name("value")?;
        DynamicMessage::decode(descriptor, value.as_bytes()?.clone()).ok()
    }

    /// The pool itself, for extensions of options.
    pub(crate) fn pool(&self) -> &DescriptorPool {
        &self.pool
    }
}

/// A [`Schema`] that is loaded when somebody first looks, and may be dropped again.
#[derive(Default)]
pub struct OnDemand(OnceCell<Schema>);

impl OnDemand {
    /// Whether it is loaded.
    pub fn is_loaded(&self) -> bool {
        self.0.get().is_some()
    }

    /// Drops it until somebody looks again.
    pub fn unload(&mut self) {
        self.0.take();
    }
}

impl Deref for OnDemand {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        self.0.get_or_init(Schema::load)
    }
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_loaded() { "OnDemand(loaded)" } else { "OnDemand" })
    }
}
